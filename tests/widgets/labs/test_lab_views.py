"""What the views draw: only what changed, the same in both hosts, and everything can be saved."""

from __future__ import annotations

import io
import json
import re
import threading
import time

import pytest
from lab_script import make_trace, unpacked

from widgets.labs.decode import exports
from widgets.labs.decode.blocks import Presenter, bound_row
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.engine import NodeLaws
from widgets.labs.decode.jupyter import JupyterView
from widgets.labs.decode.lab import DecodeLab, show
from widgets.labs.decode.panel import DecodePanel
from widgets.labs.decode.twin import twin_html
from workbench.core.errors import BadInput, TraceError
from workbench.core.trace import Baseline, Trace


@pytest.fixture
def controller(script, trace):
    with_plain = trace.with_(baseline=Baseline(30, 9.0, 8.0, 10.0))
    made = DecodeController("t", "d", trace=with_plain, tools=script.engine())
    yield made
    made.close()


def test_a_presenter_hands_out_each_block_once_and_then_only_changes(controller):
    presenter = Presenter(controller.laws)
    first = presenter.changes(controller.view())
    assert {"stream", "tree", "law", "map", "length", "speed", "form"} <= set(first)
    assert presenter.changes(controller.view()) == {}
    controller.select_node(1, 4)
    assert set(presenter.changes(controller.view())) <= {
        "round", "chosen", "tree", "node", "law", "map", "length",
    }  # fmt: skip
    controller.change("temperature", -1.0)
    changed = presenter.changes(controller.view())
    assert "temperature" in changed["error verifier"] and "stream" not in changed


def test_while_a_run_is_going_only_stream_tree_and_numbers_move(script, controller):
    script.total, script.gap_s = 300, 0.005
    presenter = Presenter(controller.laws)
    presenter.changes(controller.view())
    controller.start()
    while not (controller.state == "running" and len(controller.trace.rounds) > 2):
        time.sleep(0.005)
    presenter.changes(controller.view())
    seen = len(controller.trace.rounds)
    while len(controller.trace.rounds) < seen + 3:
        time.sleep(0.005)
    moving = set(presenter.changes(controller.view()))
    assert {"stream", "tree", "speed"} <= moving
    assert not moving & {"map", "length", "law", "node", "form", "head"}
    controller.stop()
    assert controller.wait(5)
    assert {"map", "length", "law", "node"} <= set(presenter.changes(controller.view()))


def test_the_bound_stands_beside_the_rules_of_a_node(controller):
    presenter = Presenter(controller.laws)
    controller.select_node(1, 3)
    told = presenter.changes(controller.view())["node"]
    assert "bound: one of the 2 siblings" in told and "0.81 to 0.94" in told
    assert "on average over their draws" in told and told.index("bound") < told.index("other")
    assert bound_row(NodeLaws({}, 0.6, 0.6, 1)) == ("bound", "0.60")


def test_two_looks_at_traces_that_differ_only_in_the_baseline(controller, trace):
    presenter = Presenter(controller.laws)
    presenter.changes(controller.view())
    controller.show(trace)
    assert "speed" in presenter.changes(controller.view())


@pytest.mark.parametrize("make", [JupyterView, DecodePanel])
def test_both_hosts_show_the_same_and_close_their_thread(make, controller):
    before = threading.active_count()
    view = make(controller)
    assert len(unpacked(view.stream.data)["tokens"]) == 6 and view.tree.round_count == 3
    controller.select_node(2, 4)
    view.flush()
    assert (view.stream.selected, view.tree.selected) == (2, 4)
    assert unpacked(view.tree.data)["round"] == 2
    assert view.buttons["undo"].disabled
    controller.change("max_new_tokens", 7)
    view.flush()
    assert view.count.control.value == 7 and not view.buttons["undo"].disabled
    controller.change("drafter", "token_recycling")
    view.flush()
    assert view.pickers["drafter"].control.value == "token_recycling"
    view.count.control.value = 0
    view.flush()
    error = view.errors["prompt"]
    assert "max_new_tokens=0" in getattr(error, "value", "") + getattr(error, "object", "")
    view.close()
    end = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() <= before


@pytest.mark.parametrize("make", [JupyterView, DecodePanel])
def test_events_are_heard_once_in_order(make, controller):
    view = make(controller)
    heard = []
    view.controller.handle = heard.append
    events = [{"seq": i, "kind": "node", "round": 0, "node": i} for i in range(1, 6)]
    view.tree.outbox = events[:3]
    view.tree.outbox = events
    assert [event["node"] for event in heard] == [1, 2, 3, 4, 5]
    view.close()


@pytest.mark.parametrize("kind", list(exports.KINDS))
def test_everything_can_be_saved(kind, controller):
    if kind.startswith("Method's own"):
        with pytest.raises(BadInput, match="report nothing to draw"):
            exports.export_bytes(kind, controller.view())
        return
    data = exports.export_bytes(kind, controller.view())
    name = exports.KINDS[kind].filename
    if name == "trace.json":
        assert Trace.from_json(data) == controller.trace
    elif name.endswith(".parquet"):
        import pandas

        assert len(pandas.read_parquet(io.BytesIO(data))) == 3
    elif name.endswith(".csv"):
        assert data.decode().count("\n") > 1
    else:
        text = data.decode()
        assert ("<svg" in text) if name.endswith(".svg") else text.startswith("<!doctype html>")
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)


def test_nothing_to_save_says_so(script):
    empty = DecodeController("t", "d", "hi", tools=script.engine())
    with pytest.raises(BadInput, match="press Start"):
        exports.export_bytes("Trace (JSON)", empty.view())


def test_the_static_twin_needs_nothing_and_repeats(controller):
    page = twin_html(controller.view())
    assert page == twin_html(controller.view())
    assert "<script" not in page and not re.search(r"(src|href)=", page)
    assert "Speed" in page and page.count("<svg") == 5 and len(page) < 100_000


@pytest.mark.parametrize("rounds", [0, 1, 500])
def test_twins_and_blocks_of_any_length(rounds, script):
    trace = make_trace(rounds)
    made = DecodeController("t", "d", trace=trace, tools=script.engine())
    presenter = Presenter(made.laws)
    assert "stream" in presenter.changes(made.view())
    assert len(twin_html(made.view())) < 400_000


def test_a_lab_on_a_page_without_a_kernel(trace, tmp_path):
    lab = show(trace.save(tmp_path / "run.json"))
    bundle, _ = lab._repr_mimebundle_()
    assert bundle["text/plain"] == "<Trace viewer of scripted:target>"
    assert "<svg" in bundle["text/html"] and "application/vnd.jupyter.widget-view+json" in bundle
    said = lab.view.html["progress"].value
    assert "saved run of scripted:target" in said and "Start" not in said
    lab.close()
    (tmp_path / "bad.json").write_text(json.dumps({"schema": 1}))
    with pytest.raises(TraceError, match=r"bad\.json"):
        DecodeLab.open(tmp_path / "bad.json")


def test_the_shipped_recording_is_there_small_and_honest():
    from importlib.resources import files

    from widgets.labs.decode.recorded import FOLDER, NAME, recorded_trace

    trace = recorded_trace()
    assert trace is not None and trace.model == "zoo:target" and trace.rounds
    assert trace.baseline is not None, "the speed corner needs its baseline"
    assert len((files(FOLDER) / NAME).read_bytes()) < 150_000
