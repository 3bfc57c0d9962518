"""``workbench bench performance``: the speed targets and what grows with what, as one page.

Every part can be measured alone; ``--write`` puts it into docs/performance.md, others stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench.bench import growth, peers
from workbench.bench.claims import sections
from workbench.bench.machine import this_machine, words
from workbench.core.errors import ModelError, at_least
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.models.load import load, versions
from workbench.models.threads import set_threads

REPORT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
HEAD = """\
# Performance

Made by `workbench bench performance --write`; every part names the machine and the day. What is
compared runs interleaved in one process, and ratios are medians with a bootstrapped 90 % interval.
Another machine gives other numbers: the command is there to be run on yours.
"""
# Draft sizes of the targets' table: of a few, those with most tokens for what such a pass takes, on
# held-out prose, docstrings and tests, so not on the code that is measured.
SIZES = {
    "draft_model": dict(depth=3, nodes=3, width=1),
    "token_recycling": dict(depth=4, nodes=4, width=1),
    "prompt_lookup": dict(depth=4, nodes=4),
    "rest": dict(depth=2, nodes=3),
}


def fixed(size: dict[str, int]) -> Any:
    """The policy that grants so much every round."""
    return make_method("policy", "fixed", **size)


def targets(say: Callable[[str], None], repeats: int) -> dict[str, Any]:
    """Plain and speculative decoding against transformers and against our own plain decoding."""
    from workbench.zoo.held_out import prompts

    target, draft = load("zoo:target", dtype="float32"), load("zoo:draft", dtype="float32")
    texts = [p.text for p in prompts() if p.kind == "code"]
    tables = {}
    for temperature in (0.0, 0.8):
        say(f"targets at temperature {temperature:g}")
        sampling = Sampling(temperature)
        rows = [
            peers.transformers_row("transformers: generate", target, sampling, 96),
            peers.own_row(target, draft, "none", "fixed", sampling, 96),
        ]
        rows += [
            peers.own_row(target, draft, name, fixed(size), sampling, 96)
            for name, size in SIZES.items()
        ]
        peers.measure(rows, target, texts, repeats, warm=True)
        if sampling.greedy:
            peers.note_gaps(rows, target, texts, repeats)
        tables[f"T = {temperature:g}"] = peers.summarise(rows, sampling.greedy)
    return {"tables": tables, "prompts": len(texts), "repeats": repeats}


def _passes(say, repeats: int) -> dict[str, Any]:
    say("what runs a pass")
    return {"rows": growth.by_pass(load("zoo:target", dtype="float32"))}


def _contexts(say, repeats: int) -> dict[str, Any]:
    say("context")
    return {"rows": growth.by_context(load("zoo:target", dtype="float32"))}


def _trees(say, repeats: int) -> dict[str, Any]:
    say("rows of a pass")
    return {"rows": growth.by_rows(load("zoo:target", dtype="float32"))}


def _sizes(say, repeats: int) -> dict[str, Any]:
    say("model size")
    return {"rows": growth.by_size(load("zoo:target", dtype="float32"))}


def _workers(say, repeats: int) -> dict[str, Any]:
    say("workers")
    return {"rows": growth.by_workers()}


# Heading of each part, and the reason for its slope.
PARTS = {
    "targets": (
        "Speed targets (`zoo:target`, held-out code, 96 new tokens)",
        "`x plain` is against our own plain decoding, `x transformers` against `generate` for all"
        " rows. Repeated 4-grams: looping text flatters every draft. Outside: share of a round that"
        " is no pass of a model. Aimed at: plain 3 x transformers, draft model 1.3 x plain and"
        " token recycling or REST 2 x plain on code, at most 10 % outside. What is short of that:"
        " the prompt is read at the same pace by every row; a pass that waits for memory carries"
        " a few rows almost for nothing and pays for each further one (see its own table), so the"
        " trees of a small target stay small; and what stands around a pass is Python in caches"
        " that the weights have just swept.",
    ),
    "passes": (
        "A pass by what runs it (`zoo:target`, no tokens stored)",
        "`transformers` is its own forward, `walk` calls its layers one by one, `fused` repeats"
        " their arithmetic in fewer operations, `kernel` runs all layers in one call over packed"
        " weights ([decision 009](decisions/009-compiled-pass.md)). `compile s`: the first call of"
        " `torch.compile` for this number of rows.",
    ),
    "context": (
        "A pass by stored tokens (random weights of the target's shape)",
        "Every row reads all stored keys and values, so a pass grows in a straight line; with 16"
        " rows the line is steeper, because each of them attends on its own.",
    ),
    "rows": (
        "A pass by rows of the tree (`zoo:target`, 256 tokens stored)",
        "Up to a few rows a pass waits for the weights to be read, which one row needs as well;"
        " from there on it is arithmetic, and each further row costs the same.",
    ),
    "size": (
        "Plain decoding by parameters (random weights that fit 16 bits)",
        "A token reads every weight once. Small models fit the caches and the rest is overhead,"
        " which is where the distance to transformers is largest; large ones run at the memory's"
        " speed, and the distance that stays is 16 against 32 bits a weight.",
    ),
    "workers": (
        "A sweep by processes (`zoo:draft`)",
        "Each process loads the models once and measures blocks on its own; starting them costs"
        " seconds, and they share the cores and the memory.",
    ),
    "labs": (
        "Labs: pictures by rounds of a trace, and live decoding",
        "A picture of a whole trace grows with its rounds and is drawn when a run ends or is"
        " opened, not while it runs; those of one round do not grow. Live: the time from round"
        " to round in a lab that draws at most five times a second, against the same run alone.",
    ),
}
MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "targets": targets,
    "passes": _passes,
    "context": _contexts,
    "rows": _trees,
    "size": _sizes,
    "workers": _workers,
}


def section(name: str, table: Mapping[str, Any]) -> str:
    """One part of the page."""
    heading, reason = PARTS[name]
    when = f"{table['day']}, {table['machine']}, {table['threads']} thread(s)"
    lines = [f"<!-- {name} -->", f"## {heading}", "", f"{when}.", "", reason, ""]
    if "tables" in table:
        for label, rows in table["tables"].items():
            lines += [f"**{label}**, {table['prompts']} prompts x {table['repeats']}", ""]
            lines += [*_targets(rows), ""]
    else:
        lines += [*markdown(table["rows"]), ""]
    for sentence in table.get("notes", ()):
        lines += [sentence, ""]
    return "\n".join(lines)


def _targets(rows: list[dict[str, Any]]) -> list[str]:
    generate = next(row for row in rows if row["row"] == "transformers: generate")
    shown = []
    for row in rows:
        low, high = row["ratio_to_own_ar_interval"]
        outside = row["outside_forward_ratio"]
        shown.append(
            {
                "decoder": row["row"],
                "tokens/s": row["tokens_per_s"],
                "tokens a pass": row["mean_emitted"],
                "x plain": f"{row['ratio_to_own_ar']:.2f} [{low:.2f}, {high:.2f}]",
                "x transformers": round(row["tokens_per_s"] / generate["tokens_per_s"], 2),
                "repeated 4-grams": f"{row['repeated_4gram_ratio']:.0%}",
                "outside": "-" if outside is None else f"{outside:.0%}",
                "same tokens": _same(row),
            }
        )
    return markdown(shown)


def _same(row: dict[str, Any]) -> str:
    gap = row["largest_divergence_gap"]
    return f"{row['same_tokens'] or '-'}" + ("" if gap is None else f" (gaps up to {gap:.2g})")


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """A table of dictionaries with the same keys."""
    names = list(rows[0])
    lines = [
        "| " + " | ".join(n.replace("_", " ") for n in names) + " |",
        "|---" * len(names) + "|",
    ]
    for row in rows:
        cells = [
            f"{v:.3g}" if isinstance(v, float) and v < 100 else _whole(v) for v in row.values()
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def page(text: str, measured: Mapping[str, str]) -> str:
    """The page with the measured parts in place of the old ones."""
    found = {**sections(text), **measured}
    return "\n".join([HEAD, *(found[name] for name in PARTS if name in found)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``workbench bench performance``."""
    parser.add_argument(
        "--part", nargs="+", choices=[*PARTS], default=[*PARTS], help="measure only these"
    )
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    parser.add_argument("--repeats", type=int, default=3, help="of the targets (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the tables as JSON")


def run(args: argparse.Namespace, labs: Callable[..., dict[str, Any]]) -> int:
    """Measure, print and write; ``labs`` measures the user interface, which is not known here."""
    at_least(1, repeats=args.repeats)
    set_threads(args.threads)
    measures, tables, made = {**MEASURES, "labs": labs}, {}, {}
    for name in args.part:
        table = measures[name](lambda line: print(line, file=sys.stderr, flush=True), args.repeats)
        day = time.strftime("%Y-%m-%d")
        here = {"day": day, "machine": words(this_machine()), "threads": args.threads}
        tables[name] = {**table, **here, "versions": versions()}
        made[name] = section(name, tables[name])
        if args.write:
            _write({name: made[name]})
    print(json.dumps(tables, indent=1) if args.json else "\n".join(made.values()))
    return 0


def _write(made: Mapping[str, str]) -> None:
    if not REPORT.parent.is_dir():
        raise ModelError(f"--write: {REPORT.parent} is not there; run it in a checkout")
    old = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    REPORT.write_text(page(old, made), encoding="utf-8")
