"""What a lab keeps up round by round is what the whole trace says, and costs no more later."""

from __future__ import annotations

import itertools
import threading
import time

import msgspec
import pytest
from lab_script import LONG_S, make_round, make_trace, undrafted, unpacked, until

from widgets.figures.method_picture import kind_of
from widgets.figures.token_stream import stream_data
from widgets.labs import coalesce
from widgets.labs.coalesce import SHARE, Coalescer
from widgets.labs.decode.blocks import Presenter, fields_of
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.growing import TAIL_RATIO, TAIL_TOKENS, Kind, LiveStream, Tally
from widgets.labs.decode.jupyter import JupyterView
from widgets.labs.decode.panel import DecodePanel
from widgets.views.packed import packed

COLUMNS = ("tokens", "round", "node", "index", "p", "q", "alternatives", "words", "fates")


def grown(rounds: int, step: int = 1):
    """Traces of one run while it grows: each holds the rounds of the one before.

    Every round brings a word that was not there before.
    """
    whole, new = make_trace(rounds), {100 + i: f" word{i}" for i in range(rounds)}
    made = [
        undrafted(i) if i % 7 == 3 else msgspec.structs.replace(done, emitted=[5, 100 + i])
        for i, done in enumerate(whole.rounds)
    ]
    whole = whole.with_(rounds=made, pieces={**whole.pieces, **new})
    return [whole.with_(rounds=made[:count]) for count in range(0, rounds + 1, step)]


def joined(data: dict, tail: dict) -> dict:
    """What the view makes of both, as in ``token_stream.js``."""
    shown = {key: value for key, value in data.items() if key != "number"}
    if tail and tail["of"] == data["number"]:
        shown |= {name: data[name] + tail[name] for name in COLUMNS} | {"rounds": tail["rounds"]}
    return shown


class Page:
    """The blocks that a page holds, and how often each was sent."""

    def __init__(self, stream: LiveStream):
        self.stream, self.keys, self.sent, self.data, self.tail = stream, (0, 0), [], {}, {}

    def draw(self, trace, running: bool = True):
        keys = self.stream.show(trace, running)
        if keys[0] != self.keys[0]:
            self.data = self.stream.whole()
            self.sent.append(len(self.data["tokens"]))
        if keys != self.keys:
            self.tail = self.stream.tail()
        self.keys = keys
        return joined(self.data, self.tail)


def test_whole_and_tail_together_are_the_stream_at_any_moment():
    page = Page(LiveStream())
    for trace in grown(120):
        assert page.draw(trace) == stream_data(trace)
    other = grown(5)[-1]
    assert page.draw(other) == stream_data(other), "another run starts over"
    assert page.tail == {}
    longer = grown(9, 3)
    for trace in longer:
        page.draw(trace)
    assert page.tail
    assert page.draw(longer[-1], running=False) == stream_data(longer[-1])
    assert page.tail == {}, "at rest the whole is all there is"


def test_the_whole_is_sent_seldom_and_the_tail_stays_short():
    page, traces = Page(LiveStream()), grown(600, 10)
    for trace in traces:
        page.draw(trace)
        assert len(page.tail.get("tokens", ())) <= max(TAIL_TOKENS, TAIL_RATIO * page.sent[-1])
    assert len(traces[-1].new_tokens) == 1200 and len(page.sent) < 16 < len(traces) / 3


def test_only_new_rounds_are_looked_at(monkeypatch):
    looked = []
    real = type(make_round(0)).depth
    monkeypatch.setattr(
        "widgets.figures.token_stream._tokens_of",
        lambda trace, position, round_: looked.append(position) or [],
    )
    stream, tally = LiveStream(), Tally()
    levels = property(lambda self: looked.append(-1) or real.fget(self))
    monkeypatch.setattr(type(make_round(0)), "depth", levels)
    for trace in grown(40, 4)[1:]:
        stream.show(trace, True)
        tally.summary(trace)
    assert sorted(at for at in looked if at >= 0) == list(range(40))
    assert looked.count(-1) == 40


def test_the_live_numbers_are_those_of_the_summary():
    tally = Tally()
    for trace in [*grown(30, 3), *grown(4), make_trace(0)]:
        for name, value in tally.summary(trace).items():
            assert value == pytest.approx(trace.summary[name]), (name, len(trace.rounds))


def test_the_kind_of_picture_is_found_as_the_run_goes_on():
    told = [{}, {"hits": 1}, {"hits": 2}, {"origin": [0]}, {}]
    rounds = [msgspec.structs.replace(make_round(i), report=r) for i, r in enumerate(told)]
    kind, whole = Kind(), make_trace(5).with_(rounds=rounds)
    found = []
    for count in range(6):
        trace = whole.with_(rounds=rounds[:count])
        found.append(kind.of(trace))
        assert found[-1] == kind_of(trace)
    assert found == ["", "", "hits", "hits", "origin", "origin"]
    assert kind.of(make_trace(3)) == ""


@pytest.mark.parametrize("make", [JupyterView, DecodePanel])
def test_both_hosts_show_all_of_a_run_when_it_is_over(make, script):
    script.total, script.gap_s = 90, 0.004
    lab = DecodeController("t", "d", "def f(x", tools=script.engine())
    view = make(lab)
    lab.start()
    until(lambda: view.tree.round_count > 3)
    assert lab.wait(LONG_S)
    view.flush()
    wanted = stream_data(lab.trace)
    assert joined(unpacked(view.stream.data), {}) == wanted and view.stream.tail == {}
    assert view.tree.round_count == 90 and not view.stream.running
    view.close()
    lab.close()


def test_a_run_of_the_same_objects_is_sent_by_its_tail(script):
    """The real engine keeps its rounds; the presenter then hands out no second whole."""
    lab = DecodeController("t", "d", trace=make_trace(3), tools=script.engine())
    presenter, traces = Presenter(lab.laws), grown(8)
    running = lab.view()._replace(state="running", following=True)
    first = presenter.changes(running._replace(trace=traces[4]))
    second = presenter.changes(running._replace(trace=traces[6]))
    assert "data" in fields_of("stream", first)
    fields = fields_of("stream", second)
    assert "data" not in fields and len(unpacked(fields["tail"])["tokens"]) == 4
    assert joined(first["stream"], second["tail"]) == stream_data(traces[6])
    assert "verdict" not in second, "the same words are not made again"


def test_packed_data_is_one_text_and_comes_out_as_it_went_in():
    data = stream_data(make_trace(4)) | {"prompt": ["é \n", "\ud83d\ude00 </script>"]}
    assert list(map(type, packed(data).values())) == [str]
    assert unpacked(packed(data)) == data == unpacked(data)
    assert packed({}) == {} == unpacked({})


# ---- the pace of drawing -------------------------------------------------------------------------


def gaps_s(writer: Coalescer, times: list[float], count: int) -> list[float]:
    until(lambda: writer.mark() or len(times) >= count)
    writer.close()
    return [b - a for a, b in itertools.pairwise(times)]


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_dear_draws_are_further_apart_while_something_is_busy():
    times: list[float] = []
    writer = Coalescer(
        lambda: (times.append(time.monotonic()), burn(0.012)), 0.01, busy=lambda: True
    )
    first, *others = gaps_s(writer, times, 4)
    assert min(others) >= 0.012 / SHARE > 0.3
    assert first < min(others), "one dear draw, as the first of a run, holds nothing up"


def test_nothing_waits_longer_when_nothing_is_busy():
    times: list[float] = []
    writer = Coalescer(lambda: (times.append(time.monotonic()), burn(0.02)), 0.01)
    begun = time.monotonic()
    gaps_s(writer, times, 4)
    assert min(b - a for a, b in itertools.pairwise(times)) < 0.02 / SHARE
    assert time.monotonic() - begun < LONG_S


def test_what_another_thread_spent_counts_and_the_end_of_the_work_is_drawn_at_once(monkeypatch):
    monkeypatch.setattr(coalesce, "LONGEST_S", 10 * LONG_S)
    times, busy = [], threading.Event()
    busy.set()

    def flush():
        times.append(time.monotonic())
        other = threading.Thread(target=lambda: writer.charge(LONG_S))
        other.start()
        other.join()

    writer = Coalescer(flush, 0.01, busy=busy.is_set)
    for count in (1, 2):
        writer.mark()
        until(lambda count=count: len(times) == count)
    writer.mark()
    time.sleep(0.2)
    assert len(times) == 2
    busy.clear()
    until(lambda: len(times) == 3)  # otherwise it is another ten minutes
    writer.close()
