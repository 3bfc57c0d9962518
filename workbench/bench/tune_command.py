"""``workbench bench tune``: search for the fastest setting here, keep it, open one again."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from workbench.bench.arena_command import (
    ProgressLine,
    add_model_arguments,
    add_prompt_arguments,
    checked_device,
    prompts_of,
    setting_of,
)
from workbench.bench.preset import Preset, open_preset
from workbench.bench.search import Search
from workbench.bench.tuning import Tuner
from workbench.bench.turn import turn_of
from workbench.core.sampling import Sampling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``workbench bench tune``."""
    add = parser.add_argument
    add("--open", type=Path, metavar="PRESET", help="show a preset instead of searching for one")
    add("--folder", default="tuning", metavar="DIR",
        help="keeps trials and preset; what was cut off goes on (%(default)s)")  # fmt: skip
    add("--target", default="zoo:target", metavar="M", help="(%(default)s)")
    add("--draft", default="zoo:draft", metavar="M", help="(%(default)s)")
    add("--draft-device", metavar="D", help="where the draft stands: cpu, cuda (the target's)")
    add("--drafter", nargs="+", default=["token_recycling", "prompt_lookup", "draft_model"],
        metavar="N", help="to choose from")  # fmt: skip
    add("--policy", nargs="+", default=["fixed"], metavar="N", help="to choose from")
    add("--knob", nargs="*", default=[], metavar="METHOD.KNOB", help="drafters' knobs to tune too")
    add("--most-nodes", type=int, default=32, metavar="N", help="of a tree (%(default)s)")
    add("--most-depth", type=int, default=8, metavar="N", help="of a tree (%(default)s)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 = greedy (%(default)s)")
    add("--trials", type=int, default=30, help="configurations tried (%(default)s)")
    add("--repeats", type=int, default=3, help="of the finalists' prompts (%(default)s)")
    add_prompt_arguments(parser)
    add_model_arguments(parser)
    add("--json", action="store_true", help="print one JSON object")


def search_of(args: argparse.Namespace) -> Search:
    """The search that the options describe."""
    return Search(
        prompts_of(args),
        args.target,
        args.draft,
        tuple(args.drafter),
        tuple(args.policy),
        tuple(args.knob),
        {"nodes": args.most_nodes, "depth": args.most_depth, "most": args.most_depth, "width": 8},
        Sampling(args.temperature),
        setting_of(args),
        args.trials,
        repeats=args.repeats,
        draft_device=checked_device(args.draft_device) if args.draft_device else "",
    )


def repeat_command(args: argparse.Namespace) -> str:
    """What to type to tune the same on another machine."""
    words = ["workbench", "bench", "tune", "--folder", f"{args.folder}-anew"]
    for name in ("target", "draft", "drafter", "policy", "prompts", "temperature", "trials"):
        value = getattr(args, name)
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    if args.draft_device:
        words += ["--draft-device", args.draft_device]
    return shlex.join([*words, "--new-tokens", str(args.new_tokens)])


def run(args: argparse.Namespace) -> int:
    """Search, or show a preset; 0, or 130 where the search was interrupted."""
    if args.open is not None:
        preset = open_preset(args.open)
        _print(preset, [], args.json)
        return 0
    line = ProgressLine()
    tuner = Tuner(search_of(args), args.folder, repeat_command(args))
    code = 0
    try:
        with turn_of(f"the search in {args.folder}"):
            for seen in tuner.steps():
                line(seen)
    except KeyboardInterrupt:  # the same command goes on from here
        code = 130
    finally:
        line.close()
        tuner.close()
    if tuner.preset is not None:
        _print(tuner.preset, tuner.history(), args.json)
    else:
        print(f"{tuner.progress().done} trials are kept in {args.folder}", file=sys.stderr)
    return code


def _print(preset: Preset, history: list[dict[str, Any]], as_json: bool) -> None:
    warning = preset.warning()
    if warning:
        print(f"workbench: warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps({**preset.to_json(), "warning": warning, "history": history}))
        return
    for row in history:
        value = "      -" if row["ratio"] is None else f"{row['ratio']:7.2f}"
        reason = f"  ({row['state']}: {row['reason']})" if row["reason"] else ""
        print(f"{row['trial'] + 1:4} {value} x plain  {row['label']}{reason}")
    low, high = preset.ratio_interval
    print(
        f"{preset.cell.label} ({preset.cell.place})\n  {preset.ratio:.2f} x plain"
        f" [{low:.2f}, {high:.2f}], measured again after {preset.trials} trials on"
        f" {preset.prompts['count']} prompts of {preset.prompts['source']}"
    )
