"""The arena's pictures: order, verdicts, the frontier, and the way from its tables."""

from __future__ import annotations

import math

import pytest

from widgets.figures import arena_charts, heat, pareto, ranked_bars, search_history
from widgets.figures.pareto import Pareto, Point
from widgets.figures.ranked_bars import Ranked, RankedBars
from widgets.figures.search_history import SearchHistory, Trial


def row(cell: str, ratio: float | None, **more) -> dict:
    base = {"cell": cell, "label": f"drafter {cell}", "target": "t", "temperature": 0.0}
    told = {"ratio": ratio, "ratio_interval": ratio and [ratio - 0.1, ratio + 0.1], "paired": 9}
    rest = {"lossless": True, "log_likelihood_gain": 0.0, "position_acceptance": [0.8, 0.5]}
    return {**base, **told, **rest, **more}


def bars(*values: tuple) -> RankedBars:
    return RankedBars("t", "x", tuple(Ranked(f"b{n}", *v) for n, v in enumerate(values)))


def test_bars_are_ranked_and_judged_by_their_whole_interval():
    info = bars((0.8, 0.7, 0.9), (1.5, 1.2, 1.9), (1.1, 0.9, 1.4), (math.nan,), (1.3,))
    rows = ranked_bars.rows(info)
    assert [r["name"] for r in rows] == ["b1", "b4", "b2", "b0", "b3"]
    assert [r["verdict"] for r in rows] == ["above", "open", "open", "below", "open"]
    drawn = ranked_bars.figure(info)["data"]
    assert drawn[0]["error_x"]["array"][0] == pytest.approx(0.4)
    assert drawn[0]["error_x"]["arrayminus"][0] == pytest.approx(0.3)
    said = [text.strip()[0] for text in drawn[2]["text"]]
    assert said[0] == "▲" and said[2:4] == ["●", "▼"], "by its whole interval"
    assert said[1] == "1", "without an interval nothing is judged"


def test_many_bars_say_how_many_are_left_out():
    info = bars(*[(n / 10,) for n in range(40)])
    figure = ranked_bars.figure(info)
    assert len(figure["data"][0]["x"]) == ranked_bars.SHOWN
    assert "first 16 of 40" in figure["layout"]["title"]["text"]
    assert len(ranked_bars.rows(info)) == 40 and "of 40" in ranked_bars.svg(info)


def test_the_frontier_is_what_nobody_beats():
    points = (Point("a", 1, 5), Point("b", 2, 4), Point("c", 2, 3), Point("d", 1.5, 3.9))
    info = Pareto("t", "s", "q", (*points, Point("e", 3, 1, True), Point("f", math.nan, 9)))
    assert [p.name for p in pareto.frontier(info)] == ["e", "b", "a"]
    on = {r["name"]: r["on_frontier"] for r in pareto.rows(info)}
    assert on == {"a": True, "b": True, "c": False, "d": False, "e": True, "f": False}
    drawn = pareto.figure(info)["data"]
    assert [t["name"] for t in drawn[2:]] == ["A e", "B b", "C a"]
    assert drawn[2]["marker"]["symbol"] == ["diamond"] and drawn[2]["customdata"] == [4]


def test_a_search_shows_the_best_so_far_and_what_was_pruned():
    trials = [
        Trial(0, 1.0, "a"),
        Trial(1, None, "b", "pruned"),
        Trial(2, 0.0, "b"),
        Trial(3, 2, "a"),
    ]
    info = SearchHistory("t", "x", tuple(trials))
    assert search_history.best_so_far(info) == [1.0, 1.0, 1.0, 2.0]
    stair, first, second, left = search_history.figure(info)["data"]
    assert stair["y"] == [1.0, 1.0, 1.0, 2.0] and left["customdata"] == [1]
    assert first["x"] == [1, 4] and second["y"] == [0.0]
    unfinished = SearchHistory("t", "x", (Trial(0, None, "a", "fail"),))
    assert "no trial came to its end yet" in search_history.svg(unfinished)


def test_from_tables_to_pictures():
    table = [row("f", 1.6), row("p", 1.0), row("l", 2.0, lossless=False, log_likelihood_gain=-0.5)]
    table.append(row("broken", None, position_acceptance=[], log_likelihood_gain=None))
    info = arena_charts.ranking(table)
    assert [b.name for b in info.bars] == ["drafter f", "drafter p", "drafter l"]
    assert info.bars[2].lossy and info.bars[0].low == pytest.approx(1.5)
    assert "9 pairs" in info.note
    assert [p.quality for p in arena_charts.speed_and_quality(table).points] == [0.0, 0.0, -0.5]
    kinds = {("f", "code"): (1.6, [1.5, 1.7]), ("p", "prose"): (1.0, [1.0, 1.0])}
    shown = arena_charts.by_task(kinds, table)
    assert shown.x == ("code", "prose") and shown.y == ("drafter f", "drafter p")
    assert shown.values == ((1.6, None), (None, 1.0))
    heat.figure(shown)
    lines = arena_charts.acceptance_by_depth(table).lines
    assert len(lines) == 3 and lines[0].x == (1.0, 2.0) and lines[0].y == (0.8, 0.5)
    table.append(row("g", 1.2, temperature=0.8))
    assert arena_charts.names(table)["g"] == "drafter g · T 0.8"
    many = [row(str(n), n / 10) for n in range(9)]
    lines = arena_charts.acceptance_by_depth(many)
    assert len(lines.lines) == 6 and lines.lines[0].name == "drafter 8"
    assert lines.note == "the 6 fastest of 9"
    assert not arena_charts.ranking([]).bars and not arena_charts.by_task({}, []).values
    trial = {"trial": 0, "state": "pruned", "ratio": None, "label": "x", "drafter": "rest"}
    assert arena_charts.search([trial]).trials[0] == Trial(0, None, "rest", "pruned", "x")


def test_names_leave_out_what_all_share():
    labels = ("rest, exact_match, fixed(depth=2, width=1)", "rest, exact_match, fixed", "plain")
    table = [row(str(n), 1.0, label=label) for n, label in enumerate(labels)]
    assert list(arena_charts.names(table).values()) == ["depth=2, width=1", "fixed", "plain"]
    assert arena_charts.names(table[:1]) == {"0": labels[0]}


@pytest.mark.parametrize("place", ["", " on cuda:0"])
def test_names_tell_drafts_apart_only_where_there_are_several(place):
    def called(*drafts: str) -> list[str]:
        heads = [f"draft_model(siblings=2) of {draft}{place}" for draft in drafts]
        labels = [*(f"{head}, exact_match, fixed" for head in heads), "rest, exact_match, fixed"]
        table = [row(str(n), 1.0, label=label) for n, label in enumerate(labels)]
        return list(arena_charts.names(table).values())

    assert called("my models/a") == [f"draft_model(siblings=2){place}", "rest"]
    both = called("zoo:draft", "my models/a")
    assert both[:2] == [
        f"draft_model(siblings=2) of {d}{place}" for d in ("zoo:draft", "my models/a")
    ]
