"""The command line of the arena: from words to a grid, a line of progress, a table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from workbench.bench import datasets
from workbench.bench.arena import Arena
from workbench.bench.grid import Grid, Setting
from workbench.bench.preset import open_preset
from workbench.bench.sweep import SweepProgress
from workbench.bench.turn import WAITING
from workbench.bench.workers import BACKENDS
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.method import DECODING, find_method
from workbench.core.sampling import Sampling
from workbench.models.devices import device_of

PLURAL = {"drafter": "drafters", "verifier": "verifiers", "policy": "policies"}
PLURAL["schedule"] = "schedules"


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that name a prompt set."""
    add = parser.add_argument
    add("--prompts", default="zoo:code", metavar="SOURCE",
        help="zoo, zoo:KIND, a .jsonl file or a saved data set's folder (%(default)s)")  # fmt: skip
    add("--field", metavar="NAME", help="the field of a row that holds the text")
    add("--kind-field", default="category", metavar="NAME", help="groups prompts (%(default)s)")
    add("--turns", choices=datasets.TURNS, default="first",
        help="of a conversation: its first question, or all of them joined")  # fmt: skip
    add("--prompts-per-kind", type=int, metavar="N", help="only the first N of each kind")
    add("--skip-broken", action="store_true", help="leave broken lines out, and count them")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Options about where and how much is decoded."""
    add = parser.add_argument
    add("--new-tokens", type=int, default=96, metavar="N", help="a measurement (%(default)s)")
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    add("--seed", type=int, default=0)
    add("--device", help="cpu, cuda, cuda:1 (CUDA where there is one)")
    add("--dtype", help="float32, bfloat16 or float16 (the checkpoint's own)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``workbench bench arena``."""
    add = parser.add_argument
    add("--folder", default="arena", metavar="DIR",
        help="keeps the measurements; what was cut off goes on (%(default)s)")  # fmt: skip
    add("--target", nargs="+", default=["zoo:target"], metavar="M", help="(%(default)s)")
    add("--draft", nargs="*", default=["zoo:draft"], metavar="M", help="(%(default)s)")
    add("--draft-device", nargs="*", default=[], metavar="D",
        help="where drafts stand, each compared: cpu cuda:0 (the target's)")  # fmt: skip
    add("--drafter", nargs="+", default=["token_recycling", "prompt_lookup"], metavar="N")
    add("--verifier", nargs="+", default=["exact_match"], metavar="N", help="(%(default)s)")
    add("--policy", nargs="+", default=["fixed"], metavar="N", help="(%(default)s)")
    add("--schedule", nargs="+", default=["sequential"], metavar="N", help="(%(default)s)")
    add("--set", action="append", default=[], metavar="PLACE.KNOB=V1,V2", dest="knobs",
        help="values of a knob, by family or method: policy.depth=2,4")  # fmt: skip
    add("--temperatures", type=float, nargs="+", default=[0.0], metavar="T")
    add("--top-k", type=int, default=0, metavar="K", help="keep the K likeliest tokens; 0 = all")
    add("--top-p", type=float, default=1.0, metavar="P", help="keep the likeliest P of the mass")
    add("--preset", nargs="*", default=[], metavar="FILE", help="tuned settings to compare too")
    add("--repeats", type=int, default=3, help="(%(default)s)")
    add("--carry", action="store_true", help="drafters keep their state over the prompts")
    add("--stop-at-eos", action="store_true", help="end a text where the model ends it")
    add_prompt_arguments(parser)
    add_model_arguments(parser)
    add("--jobs", type=int, default=1, help="processes that measure (%(default)s)")
    add("--backend", choices=BACKENDS, default="loky", help="joblib's backend (%(default)s)")
    add("--scheduler", metavar="ADDRESS", help="of a running Dask scheduler or Ray head")
    add("--retry-failed", action="store_true", help="measure again what ended in an error")
    add("--json", action="store_true", help="print one JSON object")


def prompts_of(args: argparse.Namespace) -> datasets.PromptSet:
    """The prompt set that the options name."""
    found = datasets.open_prompts(
        args.prompts,
        field=args.field,
        kind_field=args.kind_field,
        turns=args.turns,
        skip_broken=args.skip_broken,
    )
    return found.first(args.prompts_per_kind)


def setting_of(args: argparse.Namespace, **more: Any) -> Setting:
    """What all measurements share."""
    return Setting(
        args.new_tokens,
        seed=args.seed,
        device=args.device,
        dtype=args.dtype,
        threads=args.threads,
        **more,
    )


def checked_device(name: str) -> str:
    """The device of a draft, if this machine has it.

    Raises:
        BadInput: it has not.
    """
    device_of(name, "--draft-device")
    return name


def parse_axes(pairs: list[str], names: dict[str, list[str]]) -> tuple[tuple[str, tuple], ...]:
    """``["policy.depth=2,4"]`` -> ``(("policy.depth", (2, 4)),)``, values in the knob's type.

    Raises:
        BadInput: a pair that is not PLACE.KNOB=VALUES. BadKnob: a value of the wrong type.
    """
    axes = []
    for pair in pairs:
        place, equals, values = pair.partition("=")
        owner, dot, knob = place.partition(".")
        if not (equals and dot and knob and values):
            raise BadInput(f"--set {pair!r}: write PLACE.KNOB=VALUE[,VALUE], e.g. policy.depth=2,4")
        cards = [find_method(f, n) for f in names for n in names[f] if owner in (f, n)]
        knobs = [(card, k) for card in cards for k in card.knobs if k.name == knob]
        read = [knobs[0][1].parse(v, knobs[0][0].name) for v in values.split(",")] if knobs else []
        axes.append((place, tuple(read or values.split(","))))
    return tuple(axes)


def grid_of(args: argparse.Namespace) -> Grid:
    """The grid that the options describe."""
    names = {family: getattr(args, family) for family in DECODING}
    presets = [open_preset(path) for path in args.preset]
    for warning in filter(None, (preset.warning() for preset in presets)):
        print(f"workbench: warning: {warning}", file=sys.stderr)
    return Grid(
        prompts_of(args),
        targets=tuple(args.target),
        drafts=tuple(args.draft),
        draft_devices=tuple(checked_device(name) for name in args.draft_device),
        samplings=tuple(Sampling(t, args.top_k, args.top_p) for t in args.temperatures),
        knobs=parse_axes(args.knobs, names),
        extra=tuple(preset.cell for preset in presets),
        repeats=args.repeats,
        setting=setting_of(args, carry=args.carry, ignore_eos=not args.stop_at_eos),
        **{PLURAL[family]: tuple(names[family]) for family in DECODING},
    )


class ProgressLine:
    """``37 / 128, 12 s left`` on a terminal's standard error; elsewhere only what it waits for."""

    def __init__(self) -> None:
        self._live, self._shown = sys.stderr.isatty(), 0.0

    def __call__(self, seen: SweepProgress) -> None:
        now = time.monotonic()
        if self._live and now - self._shown > 0.2:
            left = "" if seen.eta_s is None else f", {seen.eta_s:.0f} s left"
            failed = f", {seen.failed} failed" if seen.failed else ""
            head = f"{seen.done} / {seen.total}{left}{failed}"
            print(f"\r\x1b[K{head}  {seen.line}"[:110], end="", file=sys.stderr, flush=True)
            self._shown = now
        elif not self._live and seen.line.startswith(WAITING):
            print(seen.line, file=sys.stderr)

    def close(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    """Measure what is left and print; 0, 1 where a measurement failed, 130 interrupted."""
    line = ProgressLine()
    arena = Arena(
        grid_of(args),
        args.folder,
        line,
        jobs=args.jobs,
        backend=args.backend,
        scheduler=args.scheduler,
        retry_failed=args.retry_failed,
    )
    code = 0
    try:
        arena.run()
    except KeyboardInterrupt:  # what was measured is kept, and shown
        code = 130
    except WorkbenchError:
        line.close()
        raise
    line.close()
    report = arena.report()
    print(json.dumps(report) if args.json else as_text(report))
    return code or int(report["failed"] > 0)


def as_text(report: dict[str, Any]) -> str:
    """A readable table; every acceptance under its own name."""
    prompts, setting = report["prompts"], report["setting"]
    lines = [
        f"{prompts['count']} prompts of {prompts['source']} ({prompts['turns']} turn) x"
        f" {report['repeats']} repeats, {setting['new_tokens']} tokens each;"
        f" {report['done']} of {report['total']} measured, kept in {report['folder']}",
        f"drafters {'carry their state on' if setting['carry'] else 'start anew at every prompt'};"
        " x plain: tokens/s over plain decoding's, median of pairs [90 % interval]",
    ]
    previous = None
    for row in report["table"]:
        here = row["target"], row["temperature"]
        if here != previous:
            lines += ["", f"{row['target']}, temperature {row['temperature']:g}", _HEAD]
            previous = here
        lines.append(_row(row))
    for refusal in report["refused"]:
        lines.append(f"cannot run: {refusal['label']}: {refusal['reason']}")
    for row in report["table"]:
        if row["failed"]:
            lines.append(f"failed {row['failed']} times: {row['label']}: {row['errors'][0]}")
    for skipped in report["skipped_lines"]:
        lines.append(f"left out: {skipped}")
    return "\n".join(lines)


_COLUMNS = (
    ("tok/s", "tokens_per_s", "8.1f"),
    ("cpu", "cpu_per_token_ratio", "6.2f"),
    ("accepted", "mean_accepted", "9.2f"),
    ("emitted", "mean_emitted", "8.2f"),
    ("acc.ratio", "acceptance_ratio", "10.2f"),
    ("node ratio", "node_ratio", "11.2f"),
    ("repeated", "repeated_4gram_ratio", "9.0%"),
    ("loglik", "log_likelihood", "8.3f"),
)
_HEAD = "  x plain".ljust(24) + "".join(
    f"{title:>{int(form.split('.')[0])}}" for title, _, form in _COLUMNS
)


def _row(row: dict[str, Any]) -> str:
    low, high = row["ratio_interval"] or (float("nan"), float("nan"))
    ratio = "      -" if row["ratio"] is None else f"{row['ratio']:7.2f}"
    cells = [
        f"{row[key]:{form}}" if row[key] is not None else f"{'-':>{int(form.split('.')[0])}}"
        for _, key, form in _COLUMNS
    ]
    mark = "" if row["lossless"] in (True, None) else "  (lossy)"
    return f"{ratio} [{low:.2f}, {high:.2f}]".ljust(24) + "".join(cells) + f"  {row['label']}{mark}"
