"""``workbench bench cost``: what passes cost here, the best tree for it, and other hardware."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from workbench.bench.cost_model import CostReport, cost_report
from workbench.bench.elsewhere import Place, predict
from workbench.bench.machine import this_machine, words
from workbench.bench.roofline import KNOWN, Hardware, Size, fitted
from workbench.core.errors import BadInput, at_least
from workbench.core.sampling import Sampling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``workbench bench cost``."""
    add = parser.add_argument
    add("--model", default="zoo:target", metavar="M", help="target checkpoint (%(default)s)")
    add("--draft", default="zoo:draft", metavar="M", help="for drafters that need one")
    add("--drafter", default="token_recycling", metavar="N", help="(%(default)s)")
    add("--verifier", metavar="N", help="exact_match when greedy, else multi_round")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 = greedy (%(default)s)")
    add("--kind", default="code", help="kind of held-out prompt (%(default)s)")
    add("--prompts", type=int, default=3, help="at most (%(default)s)")
    add("--new-tokens", type=int, default=64, help="of each prompt (%(default)s)")
    add("--repeats", type=int, default=2, help="of every prompt and size (%(default)s)")
    add("--parameters", type=float, nargs="*", default=[1e9, 7e9], metavar="N",
        help="sizes of targets for the prediction on other hardware")  # fmt: skip
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    add("--dtype", default="float32", help="(%(default)s)")
    add("--device", help="cpu or cuda")
    add("--draft-device", metavar="D", help="where the draft stands (the target's)")
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure, predict and print; returns the exit code."""
    from workbench.engine.run import RunSettings
    from workbench.models.devices import device_of
    from workbench.models.load import load
    from workbench.models.threads import set_threads
    from workbench.zoo.held_out import prompts as held_out

    at_least(1, prompts=args.prompts)
    set_threads(args.threads)
    texts = [p.text for p in held_out() if args.kind in (p.kind, "all")][: args.prompts]
    if not texts:
        kinds = sorted({p.kind for p in held_out()})
        raise BadInput(f"kind={args.kind!r}: one of {', '.join(kinds)} or all")
    if args.draft_device is not None:
        device_of(args.draft_device, "--draft-device")
    target = load(args.model, device=args.device, dtype=args.dtype)
    draft = load(args.draft, device=args.draft_device or args.device, dtype=args.dtype)
    sampling = Sampling(args.temperature)
    verifier = args.verifier or ("exact_match" if sampling.greedy else "multi_round")
    settings = RunSettings(
        target, texts[0], args.drafter, verifier, "fixed", sampling, args.new_tokens, draft
    )
    report = cost_report(settings, texts, repeats=args.repeats)
    elsewhere = [
        _elsewhere(report, Size(f"{count / 1e9:g} B", count), hardware)
        for count in args.parameters
        for hardware in KNOWN
    ]
    here = fitted(report.verify, Size.of(target))
    if args.json:
        found = {
            "machine": this_machine(),
            "report": asdict(report),
            "bandwidth_gb_s": here.bandwidth_gb_s,
            "tflops": here.tflops,
            "predicted_elsewhere": elsewhere,
        }
        print(json.dumps(found, indent=1))
    else:
        print(as_text(report, here, elsewhere, args))
    return 0


def _elsewhere(report: CostReport, size: Size, hardware: Hardware) -> dict:
    """What is predicted for a target on hardware, with this acceptance.

    A draft model is taken to have a tenth of the target's parameters.
    """
    small = Size("draft", size.parameters / 10, size.bytes_each, max(1, size.layers // 4))
    place = Place(size, small if report.draft else None, hardware)
    found = predict(report.acceptance, place, report.cost.draft_ms)
    return {
        "target": size.name,
        "hardware": hardware.name,
        "rows_for_free": found.rows_for_free,
        "nodes": len(found.best.parent),
        "depth": found.best.depth,
        "speedup": found.speedup,
    }


def as_text(report: CostReport, here: Hardware, elsewhere: list[dict], args) -> str:
    """Readable tables; what is predicted says so."""
    curve = report.verify
    lines = [
        f"{args.model} with {args.drafter}, {args.dtype}, {args.threads} thread(s),"
        f" {words(this_machine())}",
        "",
        "ms of a pass, measured" + "".join(f"{n:>9}" for n in curve.rows) + "  rows",
    ]
    for context, line in zip(curve.contexts, curve.ms, strict=True):
        lines.append(f"{context:>10} tokens stored" + "".join(f"{ms:9.2f}" for ms in line))
    lines += [
        f"as if {here.bandwidth_gb_s:.1f} GB/s and at least {here.tflops:.3f} TFLOP/s",
        "",
        "accepted, by the draft's choice: "
        + " ".join(f"{a:.3f}" for a in report.acceptance if a > 0),
        "",
        f"{'nodes':>6}{'depth':>6}{'emitted':>9}{'predicted':>10}{'ms':>8}{'predicted':>10}"
        f"{'x plain':>9}{'predicted':>10}",
    ]
    for row in report.rows:
        lines.append(
            f"{row.nodes:6}{row.depth:6}{row.emitted:9.2f}{row.predicted_emitted:10.2f}"
            f"{row.measured_ms:8.2f}{row.predicted_ms:10.2f}{row.measured_ratio:9.2f}"
            f"{row.predicted_ratio:10.2f}"
        )
    best = report.best
    ratio = best.emitted * report.cost.plain_ms() / best.round_ms
    lines += [
        "",
        f"best tree here, predicted: {len(best.parent)} nodes, depth {best.depth},"
        f" {best.emitted:.2f} tokens a round, {ratio:.2f} x plain",
        "",
        "other hardware, predicted from data sheets with the acceptance above",
    ]
    for found in elsewhere:
        lines.append(
            f"  {found['target']:>6} on {found['hardware']:26} {found['nodes']:3} nodes, depth"
            f" {found['depth']}: {found['speedup']:.2f} x plain (rows for free"
            f" {found['rows_for_free']:.0f})"
        )
    return "\n".join(lines)
