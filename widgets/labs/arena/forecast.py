"""Cost as HTML: sizes predicted beside measured, the best tree here, and on other hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

from widgets.figures import tree_shape
from widgets.labs.arena.tables import CSS, grid_table, meanings
from widgets.labs.frame import error_html, table_html
from workbench.bench.cost_model import CostReport
from workbench.bench.elsewhere import Prediction

DOUBTFUL = 1.4  # between a plain pass by the curve and what plain decoding took
PREDICTED = '<span class="dw-tag" data-predicted="1">predicted</span>'


def cost(report: CostReport | None) -> str:
    """Sizes that were run, predicted beside measured."""
    if report is None:
        return CSS
    heads = [
        ("draft", "nodes and depth that the length policy grants"),
        ("emitted", "tokens a round with the target's extra one, measured"),
        ("emitted, predicted", "of this tree, from the acceptance by rank"),
        ("ms a round", "measured, of drafting, the target's pass and the rest"),
        ("ms, predicted", "from the curves of a pass and the time outside passes"),
        ("x plain", "tokens/s over plain decoding's, measured in turns"),
        ("x plain, predicted", "predicted emission over predicted cost"),
    ]
    rows = [
        [
            f"{r.nodes} nodes, depth {r.depth}",
            *(f"{v:.2f}" for v in (r.emitted, r.predicted_emitted, r.measured_ms, r.predicted_ms)),
            *(f"{v:.2f}" for v in (r.measured_ratio, r.predicted_ratio)),
        ]
        for r in report.rows
    ]
    return CSS + grid_table(heads, rows) + meanings(heads)


def doubt(report: CostReport) -> str:
    """What is wrong with a curve whose plain pass is not what plain decoding took; else empty."""
    seen = [r.measured_ratio * r.measured_ms / r.emitted for r in report.rows if r.emitted]
    curve_ms, plain_ms = report.cost.plain_ms(), median(seen) if seen else 0.0
    if not plain_ms or 1 / DOUBTFUL < curve_ms / plain_ms < DOUBTFUL:
        return ""
    return (
        f"By the curve a token takes {curve_ms:.1f} ms without a draft, but plain decoding took"
        f" {plain_ms:.1f} ms; probably something else ran meanwhile. Every predicted speed-up here"
        " is off by as much; stop what else runs and start again"
    )


def best(report: CostReport | None, said: str) -> str:
    """The best tree of the measured curves, drawn, and what it is said to give."""
    if report is None:
        return '<p class="dw-small">Start measures the passes, then runs some sizes.</p>'
    tree, plain_ms = report.best, report.cost.plain_ms()
    chance = tree_shape.chances(tree.parent, tuple(report.acceptance))
    shape = tree_shape.TreeShape("Best tree here", tree.parent, chance, True)
    rows = [
        ("size", f"{len(tree.parent)} nodes, depth {tree.depth}"),
        ("tokens a round", f"{tree.emitted:.2f}"),
        ("time of a round", f"{tree.round_ms:.2f} ms"),
        ("plain decoding", f"{plain_ms:.2f} ms a token"),
        ("speed-up", f"{tree.emitted * plain_ms / tree.round_ms:.2f} x plain"),
    ]
    helps = {
        "size": "the tree of at most 64 nodes with the most tokens a second by these curves",
        "tokens a round": "expected, from the acceptance by rank; the extra token included",
        "time of a round": "the pass over the tree by the curve, and the time outside passes",
        "plain decoding": "a pass of one row by the curve, and the time outside passes",
        "speed-up": "tokens a second over plain decoding's",
    }
    alarm = error_html(doubt(report))
    about = f'<p class="dw-small">{escape(said)}</p>' if said else ""
    return f"{CSS}{alarm}{about}{tree_shape.svg(shape)}<p>{PREDICTED}</p>{table_html(rows, helps)}"


# ---- elsewhere -----------------------------------------------------------------------------------


PREDICTIONS = (
    ("speed-up", "tokens a second over plain decoding's, with the best tree for this place"),
    ("tokens a round", "expected, from the acceptance by rank; the extra token included"),
    ("plain decoding", "the longer of reading the weights and computing, for one row"),
    ("verify pass", "the same for the tree's nodes and its root"),
    ("drafting", "the draft model's passes, one a level, and what drafting costs outside passes"),
    ("transfer between devices", "of tokens and the draft's laws over the slower link, a round"),
    ("rows for free", "up to so many rows reading the weights takes longer than computing"),
)


def prediction(here: Prediction, acceptance: Sequence[float], said: str, crossing: str = "") -> str:
    """The best tree on other hardware and where its milliseconds go."""
    tree = here.best
    chance = tree_shape.chances(tree.parent, tuple(acceptance))
    shape = tree_shape.TreeShape("Best tree there", tree.parent, chance, True)
    rows = [
        ("speed-up", f"{here.speedup:.2f} x plain"),
        ("size", f"{len(tree.parent)} nodes, depth {tree.depth}"),
        ("tokens a round", f"{tree.emitted:.2f}"),
        ("plain decoding", f"{here.plain_ms:.2f} ms a token"),
        ("verify pass", f"{here.verify_ms:.2f} ms"),
        ("drafting", f"{here.draft_ms:.2f} ms"),
        ("transfer between devices", crossing or f"{here.link_ms:.2f} ms"),
        ("rows for free", f"{here.rows_for_free:.0f}"),
    ]
    helps = dict(PREDICTIONS)
    return (
        f"{CSS}<p>{PREDICTED}</p>{table_html(rows, helps)}{tree_shape.svg(shape)}"
        f'<p class="dw-small">{escape(said)}</p>'
    )


def everywhere(found: Mapping[str, Prediction]) -> str:
    """The same models on every hardware that is known."""
    told = dict(PREDICTIONS)
    heads = [
        ("hardware, predicted", "from data sheets by the roofline, never measured"),
        ("x plain", told["speed-up"]),
        ("nodes", "of the best tree"),
        ("depth", "of the best tree"),
        ("plain ms a token", told["plain decoding"]),
        ("verify ms", told["verify pass"]),
        ("drafting ms", told["drafting"]),
        ("transfer ms", told["transfer between devices"]),
        ("rows for free", told["rows for free"]),
    ]
    rows = [
        [
            name,
            f"{p.speedup:.2f}",
            str(len(p.best.parent)),
            str(p.best.depth),
            *(f"{ms:.2f}" for ms in (p.plain_ms, p.verify_ms, p.draft_ms, p.link_ms)),
            f"{p.rows_for_free:.0f}",
        ]
        for name, p in found.items()
    ]
    return CSS + grid_table(heads, rows) + meanings(heads)
