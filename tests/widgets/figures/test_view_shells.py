"""The ESM files keep to what both hosts offer; the shells agree; events come out once, in order."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from traces import make_trace

from widgets.figures import draft_tree
from widgets.labs.board import Kind
from widgets.views import esm
from widgets.views.outbox import drain

NAMES = [esm.STREAM, esm.TREE, esm.PLOT, esm.MASK]


@pytest.mark.parametrize("name", NAMES)
def test_esm_uses_only_what_both_hosts_have(name):
    text = esm.source(name)
    used = set(re.findall(r"\bmodel\.(\w+)", text))
    assert used <= {"get", "set", "save_changes", "on", "off"}, used
    code = re.sub(r"^\s*//.*$", "", text, flags=re.M)
    assert not re.search(r"^\s*import\b|\bimport\(", code, flags=re.M)
    outside = set(re.findall(r"https?://[^\s\"'`]+", code)) - {"http://www.w3.org/2000/svg"}
    assert not outside and "eval(" not in code and "new Function" not in code
    assert code.count("export default") == 1
    assert "localStorage" not in code and "document.head" not in code


@pytest.mark.parametrize("name", NAMES)
def test_events_go_through_the_outbox_alone(name):
    sets = set(re.findall(r"\bmodel\.set\(\s*[\"'](\w+)", esm.source(name)))
    state = {"width_px"} if name == esm.PLOT else set()  # what a view is, not what happened
    assert sets == {"outbox"} | state


def test_drain_hears_each_event_once_and_in_order():
    box = [{"seq": 11, "kind": "node"}, {"seq": 12, "kind": "round"}]
    events, last = drain(box, 0)
    assert [event["seq"] for event in events] == [11, 12] and last == 12
    assert drain(box, last) == ([], 12)
    assert drain([*box, {"seq": 13}], last) == ([{"seq": 13}], 13)
    assert drain([{"seq": 3}], last) == ([], 12), "an old event came back"


def test_drain_passes_over_what_is_no_event():
    assert drain(["x", None, {"seq": "9"}, {"kind": "node"}], 4) == ([], 4)
    assert drain([], 4) == ([], 4)


def test_both_shells_have_the_same_fields():
    from widgets.views import jupyter, panel

    for name in ("TokenStreamView", "DraftTreeView", "MaskCanvasView"):
        ours = getattr(jupyter, name)()
        synced = {t for t in ours.traits(sync=True) if not t.startswith("_")}
        synced -= {"layout", "tabbable", "tooltip"}
        theirs = getattr(panel, name)
        for field in synced:
            assert field in theirs.param, f"{name}.{field} is missing in the Panel shell"
            assert theirs.param[field].default == getattr(ours, field), f"{name}.{field}"


def test_both_hosts_of_a_board_draw_every_kind_of_cell():
    from widgets.labs import board_jupyter as jupyter
    from widgets.labs import board_panel as panel

    kinds = set(get_args(Kind)) - {"html"}
    assert set(jupyter.VIEWS) == kinds and set(panel.VIEWS) | {"plot"} == kinds


def test_a_view_stores_a_snapshot_beside_the_live_widget():
    from widgets.views import jupyter

    tree = draft_tree.info(make_trace(2))
    view = jupyter.DraftTreeView(data=draft_tree.tree_data(tree))
    view.with_static_twin("draft tree of 2 rounds", svg=lambda: draft_tree.svg(tree))
    bundle, _ = view._repr_mimebundle_()
    assert bundle["text/plain"] == "<draft tree of 2 rounds>"
    assert bundle["image/svg+xml"] == bundle["text/html"] == draft_tree.svg(tree)
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_view_without_a_snapshot_still_has_a_stable_text():
    from widgets.views import jupyter

    bundle, _ = jupyter.TokenStreamView()._repr_mimebundle_()
    assert bundle["text/plain"] == "<TokenStreamView>" and "text/html" not in bundle
