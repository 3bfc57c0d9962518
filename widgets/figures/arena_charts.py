"""From the arena's tables to its pictures: ranking, Pareto, drafters by task, acceptance by depth.

The tables are plain rows (:mod:`workbench.bench.summary`, the tuner's history, or their JSON), so
a saved ``summary.json`` gives the same pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from widgets.figures import svg as draw
from widgets.figures.curves import Curves, Line
from widgets.figures.heat import Heat
from widgets.figures.pareto import Pareto, Point
from widgets.figures.ranked_bars import Ranked, RankedBars
from widgets.figures.search_history import SearchHistory, Trial

Row = dict[str, Any]
LINES = 6  # of the acceptance by depth; more are told apart by nobody
LETTERS = 36  # of their names
_BETWEEN = re.compile(r", (?![^(]*\))")  # parts of a label, not the knobs of one
_DRAFT = re.compile(r" of (.+?)(?= on \S+$|$)")


def names(table: Sequence[Row]) -> dict[str, str]:
    """A short name of each cell: parts that all share are left out, so that what differs shows."""
    split = {row["cell"]: _BETWEEN.split(row["label"]) for row in table}
    _leave_out_the_only_draft(split)
    _leave_out_shared_names(split)
    drafted = [words for words in split.values() if len(words) > 1]
    shared = set.intersection(*map(set, drafted)) if len(drafted) > 1 else set()
    heads = [f for f in ("target", "temperature") if len({row[f] for row in table}) > 1]
    found = {}
    for row in table:
        words = split[row["cell"]]
        kept = [word for word in words if word not in shared] or words[:1]
        where = [f"T {row[f]:g}" if f == "temperature" else row[f] for f in heads]
        found[row["cell"]] = " · ".join([", ".join(kept), *where])
    return found


def _leave_out_the_only_draft(split: dict[str, list[str]]) -> None:
    """``draft_model of zoo:draft`` becomes ``draft_model`` where there is no other draft."""
    drafts = {found[1] for words in split.values() if (found := _DRAFT.search(words[0]))}
    if len(drafts) == 1:
        for words in split.values():
            words[0] = _DRAFT.sub("", words[0])


def _leave_out_shared_names(split: dict[str, list[str]]) -> None:
    """``fixed(depth=2)`` and ``fixed(depth=4)`` become ``depth=2`` and ``depth=4``."""
    drafted = [words for words in split.values() if len(words) > 1]
    for place in range(1, min(map(len, drafted), default=0)):  # the drafter keeps its name
        said = [words[place] for words in drafted]
        if len({one.partition("(")[0] for one in said}) > 1:
            continue
        knobs = [one.partition("(")[2].removesuffix(")").split(", ") for one in said]
        shared = set.intersection(*map(set, knobs))
        for words, mine in zip(drafted, knobs, strict=True):
            words[place] = ", ".join(knob for knob in mine if knob not in shared) or words[place]


def ranking(table: Sequence[Row]) -> RankedBars:
    """Speed over plain decoding's, with intervals."""
    called = names(table)
    bars = []
    for row in table:
        if row["ratio"] is not None:
            low, high = row["ratio_interval"]
            bars.append(Ranked(called[row["cell"]], row["ratio"], low, high, not row["lossless"]))
    pairs = max((row["paired"] for row in table), default=0)
    about = f"median of {pairs} pairs, 90 % interval" if bars else ""
    return RankedBars("Speed against plain decoding", "x plain", tuple(bars), 1.0, about)


def speed_and_quality(table: Sequence[Row]) -> Pareto:
    """Speed against the target's own log-likelihood of the text, less that of plain decoding.

    Zero is the target's own level. A rule well above it does not write better: it draws more
    sharply than the target would at this temperature.
    """
    called = names(table)
    points = tuple(
        Point(called[row["cell"]], row["ratio"], row["log_likelihood_gain"], not row["lossless"])
        for row in table
        if row["ratio"] is not None and row["log_likelihood_gain"] is not None
    )
    unit = "likelihood, nats over plain"
    about = "how likely the target finds the text" if points else ""
    return Pareto("What speed costs", "x plain", unit, points, about)


def by_task(kinds: dict[tuple[str, str], tuple[float, list[float]]], table: Sequence[Row]) -> Heat:
    """Speed of every configuration on every kind of prompt; fastest configuration first."""
    called = names(table)
    cells = [row["cell"] for row in table if any(cell == row["cell"] for cell, _ in kinds)]
    tasks = sorted({kind for _, kind in kinds})
    values = tuple(
        tuple(kinds[cell, task][0] if (cell, task) in kinds else None for task in tasks)
        for cell in cells
    )
    rows = tuple(called[cell] for cell in cells)
    return Heat("Speed by kind of prompt", "prompts", "", tuple(tasks), rows, values, "x plain")


def acceptance_by_depth(table: Sequence[Row]) -> Curves:
    """Share kept of the tokens tried at each depth, of the fastest configurations."""
    called = names(table)
    lines = []
    drafted = [row for row in table if row["position_acceptance"]]
    for row in sorted(drafted, key=lambda row: -(row["ratio"] or 0.0)):
        shares = row["position_acceptance"]
        if len(lines) < LINES:
            depths = tuple(float(depth + 1) for depth in range(len(shares)))
            lines.append(Line(draw.shorten(called[row["cell"]], LETTERS), depths, tuple(shares)))
    about = f"the {LINES} fastest of {len(drafted)}" if len(drafted) > LINES else ""
    axes = "depth in the draft", "kept of those tried"
    return Curves("Acceptance by depth", *axes, tuple(lines), note=about)


def search(history: Sequence[Row]) -> SearchHistory:
    """The tuner's trials."""
    trials = tuple(
        Trial(row["trial"], row["ratio"], row.get("drafter", ""), row["state"], row["label"])
        for row in history
    )
    return SearchHistory("The search", "x plain", trials, 1.0)
