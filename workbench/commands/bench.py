"""``workbench bench``: measurements, each of them one subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from workbench.commands import require

SUMMARY = "measure speed and acceptance on this machine"
DESCRIPTION = """\
Measure on this machine, with everything that is compared interleaved in one process.

  peers     our decoding beside the transformers library's, same checkpoint, same prompts
  claims    what the papers say, measured on the embedded models (docs/claims.md)
  lossless  whether rules and runs emit the target's law, and which rule is broken
  arena     any grid of models, drafters, rules and lengths; goes on where it was cut off
  tune      the fastest drafter, tree and length for this machine and these prompts
  cost      what passes cost here, the best tree for it, and other hardware, predicted
  performance  the speed targets, and what grows with what (docs/performance.md)"""
EXAMPLES = (
    "workbench bench peers",
    "workbench bench arena --drafter token_recycling rest --set policy.depth=2,4,8",
    "workbench bench lossless",
    "workbench bench lossless --drafter draft_model --verifier rejection",
    "workbench bench cost --drafter token_recycling",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from workbench.bench import (
        arena_command,
        claims,
        cost_command,
        lossless,
        peers,
        performance,
        tune_command,
    )

    several = parser.add_subparsers(dest="measurement", metavar="MEASUREMENT", required=True)
    one = several.add_parser("peers", help="our decoding beside transformers' own")
    peers.add_arguments(one)
    one.set_defaults(measure=_alone(peers.run))
    one = several.add_parser("claims", help="the papers' comparisons, with verdicts")
    claims.add_arguments(one)
    one.set_defaults(measure=_alone(claims.run))
    one = several.add_parser("lossless", help="audit verification rules, or runs")
    lossless.add_arguments(one)
    one.set_defaults(measure=lossless.run)
    one = several.add_parser("arena", help="a grid of methods against plain decoding, resumable")
    arena_command.add_arguments(one)
    one.set_defaults(measure=arena_command.run, libraries=("pandas", "pyarrow", "joblib"))
    one = several.add_parser("tune", help="search for the fastest setting here, resumable")
    tune_command.add_arguments(one)
    one.set_defaults(measure=tune_command.run, libraries=("optuna",))
    one = several.add_parser("cost", help="cost of passes, predicted beside measured")
    cost_command.add_arguments(one)
    one.set_defaults(measure=_alone(cost_command.run))
    one = several.add_parser("performance", help="speed targets and growth, as a page")
    performance.add_arguments(one)
    one.set_defaults(measure=_alone(_performance), libraries=("joblib", "plotly", "ipywidgets"))


def _alone(measure: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The measurement with the turn of this machine."""

    def measured(args: argparse.Namespace) -> int:
        from workbench.bench.turn import turn_of

        with turn_of(f"bench {args.measurement}"):
            return measure(args)

    return measured


def _performance(args: argparse.Namespace) -> int:
    from workbench.bench import performance

    def labs(say, repeats: int) -> dict:
        from widgets.growth import labs_table

        say("labs")
        return labs_table(repeats)

    return performance.run(args, labs)


def run(args: argparse.Namespace) -> int:
    require("bench", *getattr(args, "libraries", ()))
    return args.measure(args)
