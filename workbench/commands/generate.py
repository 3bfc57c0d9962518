"""``workbench generate``: decode one prompt and say what speculation did to it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from workbench.core.errors import BadInput, closest
from workbench.core.method import DECODING

SUMMARY = "continue a prompt with speculative decoding"
DESCRIPTION = """\
Continue PROMPT and print the text with what speculative decoding did: tokens, rounds, tokens per
round, speed. `workbench methods` lists the names that the options take, and their knobs."""
EXAMPLES = (
    'workbench generate "def add(a, b):"',
    'workbench generate "class Stack:" --draft zoo:draft --set policy.depth=4',
    'workbench generate "import" --temperature 0.8 --seed 3 --verifier multi_round --json',
    "workbench generate - --trace run.json < prompt.txt",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help="text to continue; - reads it from standard input")
    add(
        "--model",
        default="zoo:target",
        metavar="M",
        help="zoo:NAME, a folder or a hub id (%(default)s)",
    )
    add("--draft", metavar="D", help="smaller model of the same tokenizer, for draft_model")
    add("--drafter", metavar="N", help="draft_model with --draft, else token_recycling")
    add("--verifier", metavar="N", help="exact_match when greedy, else multi_round")
    add("--policy", default="fixed", metavar="N", help="how much to draft a round (%(default)s)")
    add("--schedule", default="sequential", metavar="N", help="who waits for whom (%(default)s)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="FAMILY.KNOB=VALUE",
        dest="knobs",
        help="set a method's knob, e.g. policy.depth=4; may be repeated",
    )
    add("--temperature", type=float, default=0.0, metavar="T", help="0 = greedy (%(default)s)")
    add("--top-k", type=int, default=0, metavar="K", help="keep the K likeliest tokens; 0 = all")
    add("--top-p", type=float, default=1.0, metavar="P", help="keep the likeliest P of the mass")
    add("--seed", type=int, default=0, help="of every random draw (%(default)s)")
    add("--max-new-tokens", type=int, default=128, metavar="N", help="at most (%(default)s)")
    add("--device", help="cpu, cuda, cuda:1 (CUDA where there is one)")
    add("--draft-device", metavar="D", help="of the draft model, likewise (the target's)")
    add("--dtype", help="float32, bfloat16 or float16 (the checkpoint's own, if quick here)")
    add("--threads", metavar="N", help="CPU threads; auto measures what is fastest here")
    add("--trace", type=Path, metavar="FILE", help="save every round as JSON, for the lab to open")
    add("--json", action="store_true", help="print one JSON object")


def parse_knobs(pairs: list[str]) -> dict[str, dict[str, str]]:
    """``["policy.depth=4"]`` -> ``{"policy": {"depth": "4"}, ...}``.

    Raises:
        BadInput: a pair that is not FAMILY.KNOB=VALUE.
    """
    found: dict[str, dict[str, str]] = {family: {} for family in DECODING}
    for pair in pairs:
        place, equals, value = pair.partition("=")
        family, dot, knob = place.partition(".")
        if not (equals and dot and knob):
            raise BadInput(f"--set {pair!r}: write FAMILY.KNOB=VALUE, e.g. policy.depth=4")
        if family not in found:
            raise BadInput(
                f"--set {pair!r}: {family!r} is no family.{closest(family, found)}"
                f" Families: {', '.join(found)}"
            )
        found[family][knob] = value
    return found


def build_method(family: str, name: str, typed: dict[str, str]):
    """The method with the knobs that were typed; names and values are checked by the registry."""
    from workbench.core.method import find_method

    card = find_method(family, name)
    kinds = {knob.name: knob for knob in card.knobs}
    values = {k: kinds[k].parse(v, card.name) if k in kinds else v for k, v in typed.items()}
    return card.make(**values)


def build_settings(args: argparse.Namespace):
    """Check everything that is cheap to check first, then load the models."""
    from workbench.core.decoding import Need
    from workbench.core.sampling import Sampling
    from workbench.engine.run import RunSettings
    from workbench.models.load import load

    sampling = Sampling(args.temperature, args.top_k, args.top_p, args.seed)
    names = {
        "drafter": args.drafter or ("draft_model" if args.draft else "token_recycling"),
        "verifier": args.verifier or ("exact_match" if sampling.greedy else "multi_round"),
        "policy": args.policy,
        "schedule": args.schedule,
    }
    typed = parse_knobs(args.knobs)
    chosen = {family: build_method(family, names[family], typed[family]) for family in DECODING}
    if args.max_new_tokens < 1:
        raise BadInput(f"--max-new-tokens {args.max_new_tokens}: must be 1 or more")
    if args.trace is not None:
        _check_target(args.trace)
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not prompt:
        raise BadInput(f"prompt={prompt!r} is empty; write at least one character")
    draft = args.draft
    wanted = any(Need.DRAFT in getattr(made, "needs", ()) for made in chosen.values())
    if draft is None and wanted and args.model == "zoo:target":
        draft = "zoo:draft"
    _check_draft_device(args.draft_device, draft is not None and wanted, names["drafter"])
    place = {"device": args.device, "dtype": args.dtype}
    beside = {**place, "device": args.draft_device or args.device}
    return RunSettings(
        model=load(args.model, **place),
        draft_model=load(draft, **beside) if draft else None,
        prompt=prompt,
        sampling=sampling,
        max_new_tokens=args.max_new_tokens,
        **chosen,
    )


def _check_draft_device(named: str | None, drafts: bool, drafter: str) -> None:
    from workbench.models.devices import device_of

    if named is None:
        return
    device_of(named, "--draft-device")
    if not drafts:
        raise BadInput(
            f"--draft-device {named!r}: drafter {drafter} runs no draft model; name one with"
            " --draft, or leave the option out"
        )


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise BadInput(f"--trace {str(path)!r} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"--trace {str(path)!r}: its folder does not exist; create it first")


def report(trace, text: str) -> dict:
    """The object that ``--json`` prints."""
    summary, moved = trace.summary, trace.transfer
    keys = ("new_tokens", "rounds", "mean_emitted", "mean_accepted", "tokens_per_s", "ms")
    return {
        "text": text,
        "tokens": trace.new_tokens,
        **{key: summary[key] for key in keys},
        "finish": trace.finish,
        "model": trace.model,
        "device": trace.device,
        "draft_device": trace.draft_device,
        "transfer_ms": moved.ms if moved else 0.0,
        "transfer_bytes": moved.bytes if moved else 0,
        "dtype": trace.dtype,
    }


def readable(trace, text: str) -> str:
    """The block that a person reads."""
    s = trace.summary
    apart = f" on {trace.draft_device}" if trace.draft_device not in ("", trace.device) else ""
    drafter = trace.drafter.name + (f" ({trace.draft_model}{apart})" if trace.draft_model else "")
    heat = trace.sampling["temperature"]
    lines = [
        text,
        "",
        f"{trace.model} {trace.dtype} {trace.device} | {drafter}, {trace.verifier.name},"
        f" {trace.policy.name} | {f'temperature {heat:g}' if heat else 'greedy'}",
        f"  new tokens     {s['new_tokens']:>8}   ended by: {trace.finish or 'nothing'}",
        f"  rounds         {s['rounds']:>8}   one pass of the model each",
        f"  mean emitted   {s['mean_emitted']:>8.2f}   tokens a round, the extra one included",
        f"  mean accepted  {s['mean_accepted']:>8.2f}   drafted tokens kept a round",
        f"  speed          {s['tokens_per_s']:>8.1f}   tokens/s, {s['ms']:.0f} ms after the prompt",
    ]
    if moved := trace.transfer:
        kb = moved.bytes / 1e3
        lines.append(
            f"  transfer       {moved.ms / s['rounds']:>8.2f}   ms a round between the devices,"
            f" {kb / s['rounds']:,.1f} kB; {moved.ms:.0f} ms and {kb:,.0f} kB in all"
        )
    return "\n".join(lines)


class _ProgressLine:
    """``37 / 128 tokens, 1 s left`` on a terminal's standard error; silent elsewhere."""

    def __init__(self, total: int):
        self._total, self._done, self._began = total, 0, time.monotonic()
        self._shown = 0.0
        self._live = sys.stderr.isatty()

    def add(self, tokens: int) -> None:
        self._done += tokens
        now = time.monotonic()
        if self._live and now - self._shown > 0.2:
            left = (now - self._began) / self._done * (self._total - self._done)
            line = f"\r{self._done} / {self._total} tokens, {left:.0f} s left "
            print(line, end="", file=sys.stderr, flush=True)
            self._shown = now

    def close(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    from workbench.engine.run import Run
    from workbench.models.threads import set_threads

    if args.threads not in (None, "auto"):
        set_threads(args.threads)
    settings = build_settings(args)
    if settings.model.precision:
        print(f"{settings.model.name}: {settings.model.precision}", file=sys.stderr)
    if args.threads == "auto":
        set_threads("auto", settings.model)
    decoding = Run(settings)
    line = _ProgressLine(settings.max_new_tokens)
    code = 0
    try:
        for done in decoding.rounds():
            line.add(len(done.emitted))
    except KeyboardInterrupt:  # keep what there is
        code = 130
    finally:
        line.close()
    trace = decoding.trace()
    if code:
        trace = trace.with_(finish="stopped")
    problem = _save(trace, args.trace)
    text = settings.model.decode(trace.new_tokens)
    print(json.dumps(report(trace, text)) if args.json else readable(trace, text))
    if problem:  # only now, so that the text is not lost with the file
        raise BadInput(problem)
    return code


def _save(trace, path: Path | None) -> str:
    try:
        if path is not None:
            trace.save(path)
    except OSError as error:
        return f"--trace {str(path)!r} cannot be written ({error.strerror})"
    return ""
