"""``workbench zoo inflate``: a checkpoint of a large shape with the function of a small one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from workbench.core.errors import BadInput
from workbench.zoo.inflate import DTYPES, SIZES, check, inflate, read_source
from workbench.zoo.inflated_card import warnings_of
from workbench.zoo.widening import WAYS, Shape

OUT = Path("runs/inflated")
SHAPE_HELP = {
    "hidden": "width of the stream",
    "head_size": "dimensions of a head",
    "heads": "query heads",
    "kv_heads": "key and value heads",
    "inner": "neurons of an MLP",
    "layers": "layers; those beyond the source's do nothing",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A size or a shape, the source, and how."""
    add = parser.add_argument
    add("--size", type=str.upper, choices=SIZES, help="a shape, which the next six change")
    for name in Shape._fields:
        add(f"--{name.replace('_', '-')}", type=int, metavar="N", help=SHAPE_HELP[name])
    add("--source", default="zoo:target", metavar="M", help="whose function (%(default)s)")
    add(
        "--by",
        default="duplicate",
        choices=WAYS,
        help="widen the stream by copies of it or by zeros (%(default)s)",
    )
    add("--dtype", default="float32", choices=DTYPES, help="bfloat16 rounds (%(default)s)")
    add("--seed", type=int, default=0, help="of the inert weights (%(default)s)")
    add("--out", type=Path, metavar="FOLDER", help=f"new or empty (default: {OUT}/NAME)")
    add("--check", action="store_true", help="load it and compare its logits with the source's")
    add("--json", action="store_true", help="print the card as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint and say what it is; exit code 1 where a check fails."""
    given = {name: getattr(args, name) for name in Shape._fields if getattr(args, name) is not None}
    if not given and args.size is None:
        raise BadInput(
            f"--size: name one of {', '.join(SIZES)}, or a shape (--hidden, --heads ...)"
        )
    source = read_source(args.source)
    shape = SIZES.get(args.size, Shape.of(source.network.config))._replace(**given)
    name = "-".join([args.size or "custom", *(f"{key}{value}" for key, value in given.items())])
    out = (args.out or OUT / name).expanduser()
    card = inflate(source, shape, out, way=args.by, dtype=args.dtype, seed=args.seed, report=_tell)
    print(file=sys.stderr)
    checked = check(source, out) if args.check else {}
    for line in warnings_of(card):
        print(f"note: {line}", file=sys.stderr)
    if args.json:
        print(json.dumps({"folder": str(out), **card, **checked}, indent=1))
    else:
        print(
            f"{card['parameters'] / 1e6:.1f} M parameters, {card['weights_bytes'] / 1e9:.2f} GB of"
            f" {card['dtype']}, the function of {card['source']}: {out}"
        )
        for key, value in checked.items():
            shown = ("no", "yes")[value] if key == "passed" else f"{value:.3g}"
            print(f"{key.replace('_', ' ')}: {shown}")
    return 0 if checked.get("passed", True) else 1


def _tell(line: str) -> None:
    print(f"\r{line}   ", end="", file=sys.stderr, flush=True)
