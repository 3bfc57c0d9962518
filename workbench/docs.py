"""Write ``docs/methods.md`` from the registry: ``python -m workbench.docs``."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from workbench.core.method import FAMILIES, Knob, MethodCard, Paper, methods

TARGET = Path(__file__).resolve().parents[1] / "docs" / "methods.md"
HEAD = """\
# Methods

Written by `make docs` from the registry; edit the docstrings, not this page.
How to add one: [add-a-method.md](add-a-method.md). Words: [glossary.md](glossary.md).
"""
_TITLES = {
    "drafter": "Drafters",
    "verifier": "Verifiers",
    "policy": "Length policies",
    "schedule": "Schedules",
    "adapter": "Adapters",
    "operation": "Operations on adapters",
    "pruner": "Pruners",
    "router": "Routers",
}


def _paper(paper: Paper | None) -> str:
    if paper is None:
        return "no paper"
    title = f"[{paper.title}]({paper.url})" if paper.url else paper.title
    return f"{title}, {paper.year}" + (f", {paper.section}" if paper.section else "")


def _range(knob: Knob) -> str:
    if knob.family:
        return f"a {knob.family}"
    if knob.choices:
        return ", ".join(f"`{choice}`" for choice in knob.choices)
    if knob.low is None and knob.high is None:
        return ""
    low = "" if knob.low is None else f"{knob.low:g}"
    high = "" if knob.high is None else f"{knob.high:g}"
    return f"{low} to {high}".strip()


def _knob_table(card: MethodCard) -> list[str]:
    if not card.knobs:
        return ["No knobs.", ""]
    lines = ["| knob | default | range | unit | what it does |", "|---|---|---|---|---|"]
    for k in card.knobs:
        lines.append(f"| `{k.name}` | `{k.default}` | {_range(k)} | {k.unit} | {k.help} |")
    return [*lines, ""]


def _facts(card: MethodCard) -> str:
    facts = [_paper(card.paper)]
    needs = sorted(need.value for need in getattr(card.maker(), "needs", ()))
    if card.family == "drafter":
        facts.append(f"needs: {', '.join(needs) or 'nothing'}")
    lossless = getattr(card.maker, "lossless", None)
    if lossless is not None:
        facts.append("lossless" if lossless else "**not** lossless")
    return "; ".join(facts) + "."


def method_section(card: MethodCard) -> str:
    """Heading, facts, the docstring as it stands, and the table of knobs."""
    prose = inspect.cleandoc(card.maker.__doc__ or "")
    lines = [f"### `{card.name}` - {card.title}", "", _facts(card), "", prose, ""]
    return "\n".join([*lines, *_knob_table(card)])


def methods_page() -> str:
    """The whole page; the same registry always gives the same text."""
    parts = [HEAD]
    for family in FAMILIES:
        cards = [c for c in methods(family) if c.maker.__module__.startswith("workbench.")]
        if not cards:
            continue
        parts.append(f"## {_TITLES.get(family, family.capitalize())}\n")
        parts += [method_section(card) for card in cards]
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(methods_page(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(TARGET.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
