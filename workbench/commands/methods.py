"""``workbench methods``: everything in the registry."""

from __future__ import annotations

import argparse
import json

_PLURALS = {"policy": "length policies"}
SUMMARY = "list drafters, verifiers and length policies with their knobs"
DESCRIPTION = """\
List every registered method: what it is called, the paper it comes from, and the knobs that
`workbench generate --set FAMILY.KNOB=VALUE` takes. Methods of installed packages that join through
the entry-point group `workbench.methods` are listed too."""
EXAMPLES = ("workbench methods", "workbench methods --family drafter --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from workbench.core.method import FAMILIES

    parser.add_argument("--family", choices=list(FAMILIES), help="only this family")
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(args: argparse.Namespace) -> int:
    from workbench.core.method import methods

    cards = methods(args.family)
    if args.json:
        print(json.dumps([card.to_json() for card in cards], indent=2))
        return 0
    family = None
    for card in cards:
        if card.family != family:
            family = card.family
            print(_PLURALS.get(family, f"{family}s"))
        print(f"  {card.name:<18}{card.summary}")
        for knob in card.knobs:
            unit = f" {knob.unit}" if knob.unit else ""
            print(f"      {family}.{knob.name}={knob.default}{unit}  {knob.help}{_range(knob)}")
    return 0


def _range(knob) -> str:
    if knob.options:
        return f" One of {', '.join(map(str, knob.options))}."
    if knob.low is not None and knob.high is not None:
        return f" {knob.low} to {knob.high}."
    return ""
