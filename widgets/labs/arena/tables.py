"""The arena's numbers as HTML: every configuration in a row, one in full, what cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from widgets.figures import arena_charts
from widgets.labs.arena.judged import ratio, verdict
from widgets.labs.arena.results import Results
from widgets.labs.frame import table_html
from workbench.bench.machine import words
from workbench.bench.preset import Preset

Row = dict[str, Any]
CSS = """<style>
.dw-grid-table { border-collapse: collapse; width: 100%; font-size: 12px; color: var(--dw-text);
  font-variant-numeric: tabular-nums; }
.dw-grid-table :is(th, td) { padding: 2px 0 2px 12px; text-align: right; white-space: nowrap;
  border: 0; background: none; }
.dw-grid-table th { color: var(--dw-muted); font-weight: 500; vertical-align: bottom; }
.dw-grid-table .dw-words { text-align: left; }
.dw-grid-table :is(th, td):first-child { padding-left: 0; }
.dw-grid-table abbr { text-decoration: underline dotted; text-underline-offset: 2px;
  cursor: help; }
.dw-means { font-size: 12px; line-height: 1.4; color: var(--dw-text); margin: 6px 0; }
.dw-means summary { cursor: pointer; color: var(--dw-muted); }
.dw-means dl { margin: 4px 0; max-width: 92ch; }
.dw-means dt { font-weight: 600; } .dw-means dd { margin: 0 0 4px; }
@container (max-width: 760px) { .dw-grid-table td.dw-words:first-child { white-space: normal;
  min-width: 120px; max-width: 160px; } }
.dw-grid-table tr[aria-selected=true] td { color: var(--dw-accent); font-weight: 600; }
.dw-wide { overflow-x: auto; }
.dw-tag { border: 1px solid var(--dw-edge); border-radius: 4px; padding: 0 5px; font-size: 11px;
  color: var(--dw-muted); white-space: nowrap; }
.dw-heading { font-size: 13px; font-weight: 650; margin: 0 0 4px; line-height: 1.35;
  overflow-wrap: anywhere; color: var(--dw-text); }
.dw-command { overflow-wrap: anywhere; }
.dw-list { margin: 4px 0; padding-left: 16px; font-size: 12px; line-height: 1.4;
  color: var(--dw-text); }
</style>"""


class Column(NamedTuple):
    """A column of the table; ``unit`` stands behind the number where it is alone in its line."""

    title: str
    key: str
    form: str
    help: str
    unit: str = ""


RATIO = Column(
    "x plain [90 %]",
    "ratio",
    "",
    "tokens/s divided by plain decoding's on the same prompt, repeat and seed, measured in turns;"
    " the median over these pairs. In brackets: where 90 % of the medians lie when the pairs are"
    " drawn again with replacement (bootstrap). An interval with 1 in it shows neither gain nor"
    " loss; more prompts or repeats make it narrower",
)
ACCEPTANCES = (
    Column("mean_accepted", "mean_accepted", ".2f", "draft tokens kept a round", "a round"),
    Column("mean_emitted", "mean_emitted", ".2f",
           "tokens emitted a round, with the target's extra one; papers call it tau", "a round"),
    Column("acceptance_ratio", "acceptance_ratio", ".2f",
           "kept draft tokens / levels drafted; for a chain the share of its tokens kept"),
    Column("node_ratio", "node_ratio", ".2f",
           "kept draft tokens / nodes drafted; small for a tree even where the tree pays"),
)  # fmt: skip
COLUMNS = (
    Column("tokens/s", "tokens_per_s", ".1f", "median over prompts and repeats"),
    Column("CPU a token", "cpu_per_token_ratio", ".2f",
           "processor time a token / plain decoding's", "x plain"),
    *ACCEPTANCES,
    Column("expected", "expected_emitted", ".2f",
           "expected emission a round by the rule's own chances, free of luck", "a round"),
    Column("realised", "realised_emitted", ".2f",
           "the same as it was drawn; the two agree in the long run", "a round"),
    Column("repeated 4-grams", "repeated_4gram_ratio", ".0%",
           "of the text: looping text flatters every drafter", "of the text"),
    Column("log-likelihood", "log_likelihood", ".3f",
           "of the text under the target alone, at temperature 1; what a lossy rule costs",
           "nats a token"),
)  # fmt: skip
MORE = (
    Column("target passes", "target_forwards_per_token", ".2f",
           "passes of the target / tokens", "a token"),
    Column("draft passes", "draft_forwards_per_token", ".2f",
           "passes of the draft model / tokens", "a token"),
    Column("outside passes", "outside_forward_ratio", ".0%",
           "of a round's time: drafting tables, choosing, bookkeeping", "of a round"),
    Column("likelihood over plain", "log_likelihood_gain", "+.3f",
           "log-likelihood less that of plain decoding on the same prompts", "nats a token"),
)  # fmt: skip

CROSSED = (  # only where draft and target stood apart; older results do not have them
    Column("between devices", "transfer_ms_per_round", ".2f",
           "copies of tokens, scores and laws, part of the round's time", "ms a round"),
    Column("bytes between devices", "transfer_bytes_per_round", ",.0f",
           "what those copies carry", "a round"),
)  # fmt: skip


def number(value: Any, form: str) -> str:
    """Formatted, or a dash."""
    return "–" if value is None else f"{value:{form}}"


def grid_table(
    heads: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    at: int = -1,
    lefts: Sequence[int] = (0,),
) -> str:
    """A table with a line of headings; each has a title (its help), ``lefts`` are no numbers."""
    look = [' class="dw-words"' if place in lefts else "" for place in range(len(heads))]
    top = "".join(
        f'<th scope="col"{side}>{_explained(title, told)}</th>'
        for side, (title, told) in zip(look, heads, strict=True)
    )
    body = ""
    for place, row in enumerate(rows):
        cells = "".join(
            f"<td{side}>{escape(cell)}</td>" for side, cell in zip(look, row, strict=True)
        )
        body += f'<tr aria-selected="{str(place == at).lower()}">{cells}</tr>'
    table = f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="dw-wide"><table class="dw-grid-table">{table}</table></div>'


def _explained(title: str, told: str) -> str:
    return f'<abbr title="{escape(told, True)}">{escape(title)}</abbr>' if told else escape(title)


def meanings(heads: Sequence[tuple[str, str]]) -> str:
    """What each heading means, for those who cannot hover; closed until it is asked for."""
    items = "".join(
        f"<dt>{escape(title)}</dt><dd>{escape(told)}</dd>" for title, told in heads if told
    )
    summary = "<summary>What these numbers are</summary>"
    return f'<details class="dw-means">{summary}<dl>{items}</dl></details>'


def arena(results: Results | None, chosen: str) -> str:
    """All configurations, then what cannot run and what failed."""
    if results is None:
        return CSS
    names = arena_charts.names(results.table)
    heads = [("configuration", "drafter, rule and length, without what all share; lossy = the"
              " rule changes the text's law")]  # fmt: skip
    heads += [(column.title, column.help) for column in (RATIO, *COLUMNS)]
    rows = [
        [
            names[row["cell"]] + (" (lossy)" if row["lossless"] is False else ""),
            ratio(row),
            *(number(row[column.key], column.form) for column in COLUMNS),
        ]
        for row in results.table
    ]
    at = [row["cell"] for row in results.table].index(chosen) if results.row(chosen) else -1
    return CSS + _left_out(results) + grid_table(heads, rows, at) + meanings(heads)


def _left_out(results: Results) -> str:
    lines = [f"<b>cannot run</b> {escape(r['label'])}: {escape(r['reason'])}"
             for r in results.refused]  # fmt: skip
    lines += [
        f"<b>failed {row['failed']} times</b> {escape(row['label'])}: {escape(row['errors'][0])}"
        for row in results.table
        if row["failed"]
    ]
    lines += [
        f"<b>disturbed {row['disturbed']} of {row['measurements']} times</b>"
        f" {escape(row['label'])}: something else of this process ran meanwhile, so its times are"
        " too long. Stop what runs in other labs, and measure into a new folder"
        for row in results.table
        if row.get("disturbed")
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
    shown = (*COLUMNS, *MORE)
    helps = {column.title: column.help for column in (RATIO, *shown, *CROSSED)}
    rows = [
        (RATIO.title, f"{ratio(row)} of {row['paired']} pairs"),
        *((c.title, f"{number(row[c.key], c.form)} {c.unit}".strip()) for c in shown),
        *((c.title, f"{number(row[c.key], c.form)} {c.unit}") for c in CROSSED if row.get(c.key)),
        ("same tokens as plain", row["same_tokens"] or "–"),
    ]
    kinds = [one for one in results.kinds if one.cell == chosen]
    rows += [(f"on {k.kind}", f"{k.ratio:.2f} [{k.interval[0]:.2f}, {k.interval[1]:.2f}]")
             for k in kinds if len(kinds) > 1]  # fmt: skip
    where = f"{row['target']}, temperature {row['temperature']:g}"
    lossy = " · <b>lossy</b>" if row["lossless"] is False else ""
    return (
        f"{CSS}{verdict(results.table, results.said)}"
        f'<p class="dw-heading" data-cell="{escape(chosen)}">{escape(row["label"])}</p>'
        f'<p class="dw-small">{escape(where)}{lossy}</p>{table_html(rows, helps)}'
        f'<p class="dw-small">{_about(results)}</p>'
    )


def _about(results: Results) -> str:
    said, setting = results.prompts, results.setting
    keep = "keep their state" if setting["carry"] else "start anew at every prompt"
    told = (
        f"{said['count']} prompts of {said['source']}, {setting['new_tokens']} tokens,"
        f" {results.repeats} repeats; drafters {keep}; {results.machine}"
    )
    return escape(told)


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
        ("tuned on", words(found.machine)),
    ]
    helps = {"speed-up when tuned": RATIO.help, "trials": "configurations tried in the search"}
    alarm = f'<div class="dw-error" role="alert">{escape(warning)}</div>' if warning else ""
    return (
        f'{CSS}<p class="dw-heading" data-preset="1">{escape(found.cell.label)}</p>{alarm}'
        f'{table_html(rows, helps)}<p class="dw-small dw-command">{escape(said)}</p>'
    )


def trials(history: Sequence[Row]) -> str:
    """The newest trials first."""
    if not history:
        return CSS
    heads = [
        ("trial", "in the order in which they were tried"),
        ("x plain", "tokens/s over plain decoding's, median over the prompts, one measurement each;"
         " the best of many such is too good to be true, so the preset has a fresh one"),
        ("state", "complete, pruned (lagged behind after some prompts) or fail"),
        ("what was tried", "drafter, rule and length"),
        ("why it ended", ""),
    ]  # fmt: skip
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
    return CSS + grid_table(heads, rows, lefts=(2, 3, 4)) + meanings(heads)
