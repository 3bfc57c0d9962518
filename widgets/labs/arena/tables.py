"""The arena's numbers as HTML: every configuration in a row, one in full, what cannot run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from widgets.figures import arena_charts, tree_shape
from widgets.labs.arena.results import Results
from widgets.labs.frame import table_html
from workbench.bench.cost_model import CostReport
from workbench.bench.elsewhere import Prediction
from workbench.bench.preset import Preset

Row = dict[str, Any]
CSS = """<style>
.dw-grid-table { border-collapse: collapse; width: 100%; font-size: 12px; color: var(--dw-text);
  font-variant-numeric: tabular-nums; }
.dw-grid-table :is(th, td) { padding: 2px 0 2px 12px; text-align: right; white-space: nowrap;
  border: 0; background: none; }
.dw-grid-table th { color: var(--dw-muted); font-weight: 500; vertical-align: bottom; }
.dw-grid-table :is(th, td):first-child { text-align: left; padding-left: 0; }
.dw-grid-table tr[aria-selected=true] td { color: var(--dw-accent); font-weight: 600; }
.dw-wide { overflow-x: auto; }
.dw-tag { border: 1px solid var(--dw-edge); border-radius: 4px; padding: 0 5px; font-size: 11px;
  color: var(--dw-muted); white-space: nowrap; }
.dw-heading { font-size: 13px; font-weight: 650; margin: 0 0 4px; line-height: 1.35;
  overflow-wrap: anywhere; color: var(--dw-text); }
.dw-list { margin: 4px 0; padding-left: 16px; font-size: 12px; line-height: 1.4;
  color: var(--dw-text); }
</style>"""
PREDICTED = '<span class="dw-tag" data-predicted="1">predicted</span>'


class Column(NamedTuple):
    """A column of the table."""

    title: str
    key: str
    form: str
    help: str


ACCEPTANCES = (
    Column("mean_accepted", "mean_accepted", ".2f", "draft tokens kept a round"),
    Column("mean_emitted", "mean_emitted", ".2f", "tokens emitted a round, the extra one included"),
    Column("acceptance_ratio", "acceptance_ratio", ".2f", "kept draft tokens / levels drafted"),
    Column("node_ratio", "node_ratio", ".2f", "kept draft tokens / nodes drafted"),
)
COLUMNS = (
    Column("tokens/s", "tokens_per_s", ".1f", "median over prompts and repeats"),
    Column("CPU a token", "cpu_per_token_ratio", ".2f", "processor time over plain decoding's"),
    *ACCEPTANCES,
    Column("expected", "expected_emitted", ".2f", "expected emission a round, from the verdicts"),
    Column("realised", "realised_emitted", ".2f", "the same as it was drawn"),
    Column("repeated 4-grams", "repeated_4gram_ratio", ".0%", "looping text flatters drafters"),
    Column("log-likelihood", "log_likelihood", ".3f", "nats a token, under the target alone"),
)


def number(value: Any, form: str) -> str:
    """Formatted, or a dash."""
    return "–" if value is None else f"{value:{form}}"


def ratio(row: Row) -> str:
    """``1.43 [1.38, 1.50]``."""
    if row["ratio"] is None:
        return "–"
    low, high = row["ratio_interval"]
    return f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def grid_table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], at=-1) -> str:
    """A table with a line of headings; each has a title (its help)."""
    top = "".join(f'<th scope="col" title="{escape(h, True)}">{escape(t)}</th>' for t, h in heads)
    body = ""
    for place, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        body += f'<tr aria-selected="{str(place == at).lower()}">{cells}</tr>'
    table = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="dw-wide"><table class="dw-grid-table">{table}</table></div>'


def arena(results: Results | None, chosen: str) -> str:
    """All configurations, then what cannot run and what failed."""
    if results is None:
        return CSS
    names = arena_charts.names(results.table)
    heads = [("configuration", "without what all share"),
             ("x plain [90 %]", "tokens/s over plain decoding's, in pairs")]  # fmt: skip
    heads += [(column.title, column.help) for column in COLUMNS]
    rows = [
        [
            names[row["cell"]] + (" (lossy)" if row["lossless"] is False else ""),
            ratio(row),
            *(number(row[column.key], column.form) for column in COLUMNS),
        ]
        for row in results.table
    ]
    at = [row["cell"] for row in results.table].index(chosen) if results.row(chosen) else -1
    return CSS + grid_table(heads, rows, at) + _left_out(results)


def _left_out(results: Results) -> str:
    lines = [f"<b>cannot run</b> {escape(r['label'])}: {escape(r['reason'])}"
             for r in results.refused]  # fmt: skip
    lines += [
        f"<b>failed {row['failed']} times</b> {escape(row['label'])}: {escape(row['errors'][0])}"
        for row in results.table
        if row["failed"]
    ]
    lines += [f"<b>left out</b> {escape(line)}" for line in results.skipped]
    items = "".join(f"<li>{line}</li>" for line in lines)
    return (
        f'<ul class="dw-list" data-refused="{len(results.refused)}">{items}</ul>' if items else ""
    )


def cell(results: Results | None, chosen: str) -> str:
    """Everything about one configuration."""
    row = results.row(chosen) if results else None
    if results is None or row is None:
        return '<p class="dw-small">Start measures what the left column describes.</p>'
    helps = {column.title: column.help for column in COLUMNS}
    rows = [
        ("x plain [90 %]", f"{ratio(row)} of {row['paired']} pairs"),
        *((column.title, number(row[column.key], column.form)) for column in COLUMNS),
        ("target passes a token", number(row["target_forwards_per_token"], ".2f")),
        ("draft passes a token", number(row["draft_forwards_per_token"], ".2f")),
        ("time outside passes", number(row["outside_forward_ratio"], ".0%")),
        ("same tokens as plain", row["same_tokens"] or "–"),
        ("likelihood over plain", number(row["log_likelihood_gain"], "+.3f")),
    ]
    kinds = [one for one in results.kinds if one.cell == chosen]
    rows += [(f"on {k.kind}", f"{k.ratio:.2f} [{k.interval[0]:.2f}, {k.interval[1]:.2f}]")
             for k in kinds if len(kinds) > 1]  # fmt: skip
    where = f"{row['target']}, temperature {row['temperature']:g}"
    lossy = " · <b>lossy</b>" if row["lossless"] is False else ""
    return (
        f'{CSS}<p class="dw-heading" data-cell="{escape(chosen)}">{escape(row["label"])}</p>'
        f'<p class="dw-small">{escape(where)}{lossy} · {_about(results)}</p>'
        + table_html(rows, helps)
    )


def _about(results: Results) -> str:
    said, setting = results.prompts, results.setting
    keep = "keep their state" if setting["carry"] else "start anew at every prompt"
    told = (
        f"{said['count']} prompts of {said['source']}, {setting['new_tokens']} tokens,"
        f" {results.repeats} repeats; drafters {keep}; {results.machine}"
    )
    return escape(told)


# ---- cost ----------------------------------------------------------------------------------------


def cost(report: CostReport | None) -> str:
    """Sizes that were run, predicted beside measured."""
    if report is None:
        return CSS
    heads = [("draft", "nodes and depth granted"), ("emitted", "tokens a round, measured"),
             ("emitted, predicted", "from the acceptance by rank"),
             ("ms a round", "measured"), ("ms, predicted", "from the curves"),
             ("x plain", "measured"),
             ("x plain, predicted", "predicted emission and cost")]  # fmt: skip
    rows = [
        [
            f"{r.nodes} nodes, depth {r.depth}",
            *(f"{v:.2f}" for v in (r.emitted, r.predicted_emitted, r.measured_ms, r.predicted_ms)),
            *(f"{v:.2f}" for v in (r.measured_ratio, r.predicted_ratio)),
        ]
        for r in report.rows
    ]
    return CSS + grid_table(heads, rows)


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
        ("a round", f"{tree.round_ms:.2f} ms"),
        ("plain decoding", f"{plain_ms:.2f} ms a token"),
        ("speed-up", f"{tree.emitted * plain_ms / tree.round_ms:.2f} x plain"),
    ]
    about = f'<p class="dw-small">{escape(said)}</p>' if said else ""
    return f"{CSS}{about}{tree_shape.svg(shape)}<p>{PREDICTED}</p>{table_html(rows)}"


# ---- elsewhere -----------------------------------------------------------------------------------


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
    helps = {"rows for free": "where computing takes as long as reading the weights"}
    return (
        f"{CSS}<p>{PREDICTED}</p>{table_html(rows, helps)}{tree_shape.svg(shape)}"
        f'<p class="dw-small">{escape(said)}</p>'
    )


def everywhere(found: Mapping[str, Prediction]) -> str:
    """The same models on every hardware that is known."""
    heads = [("hardware, predicted", "from data sheets by the roofline"), ("x plain", ""),
             ("nodes", ""), ("depth", ""), ("plain ms a token", ""), ("verify ms", ""),
             ("drafting ms", ""), ("transfer ms", "between the devices"),
             ("rows for free", "where computing takes as long as reading")]  # fmt: skip
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
    return CSS + grid_table(heads, rows)


# ---- tune ----------------------------------------------------------------------------------------


def preset(found: Preset | None, warning: str, said: str) -> str:
    """The preset that came out, or one that was opened, with why to doubt it."""
    if found is None:
        return (
            '<p class="dw-small">Start searches; the best settings are measured once more and'
            " become a preset. Open one here to compare it in the arena.</p>"
        )
    low, high = found.ratio_interval
    rows = [
        ("speed-up when tuned", f"{found.ratio:.2f} [{low:.2f}, {high:.2f}] x plain"),
        ("target", found.cell.target),
        ("temperature", f"{found.cell.sampling.temperature:g}"),
        ("prompts", f"{found.prompts.get('count', '?')} of {found.prompts.get('source', '?')}"),
        ("trials", str(found.trials)),
    ]
    alarm = f'<div class="dw-error" role="alert">{escape(warning)}</div>' if warning else ""
    return (
        f'{CSS}<p class="dw-heading" data-preset="1">{escape(found.cell.label)}</p>{alarm}'
        f'{table_html(rows)}<p class="dw-small">{escape(said)}</p>'
    )


def trials(history: Sequence[Row]) -> str:
    """The newest trials first."""
    if not history:
        return CSS
    heads = [("trial", ""), ("x plain", "median over the prompts"), ("state", ""),
             ("what was tried", ""), ("why it ended", "")]  # fmt: skip
    rows = [
        [
            str(row["trial"] + 1),
            number(row["ratio"], ".2f"),
            row["state"],
            row["label"],
            row["reason"],
        ]
        for row in reversed(history)
    ]
    return CSS + grid_table(heads, rows)
