"""What a user of an inflated checkpoint must know: its card and the page beside its weights."""

from __future__ import annotations

from typing import Any

from workbench.models.load import versions
from workbench.models.model import Model
from workbench.zoo.widening import Widening


def make_card(model: Model, widening: Widening, made: dict[str, Any]) -> dict[str, Any]:
    """What must be known to trust, repeat or misuse the checkpoint."""
    small, large = widening.small, widening.large
    return {
        "kind": "inflated",
        "source": model.name,
        "source_fingerprint": model.fingerprint,
        "source_parameters": model.parameters,
        **made,
        "shape": large._asdict(),
        "source_shape": small._asdict(),
        "copies": widening.copies,
        "shares": list(widening.shares),
        "gain_factor": widening.gain,
        "eps": widening.eps,
        "tied": widening.tied,
        "real": {
            "layers": [0, small.layers],
            "channels": [0, widening.channels],
            "query_heads": list(widening.heads),
            "kv_heads": [0, small.kv_heads],
            "head_dims": list(widening.dims),
            "neurons": [0, small.inner],
        },
        "inert_layers": list(range(small.layers, large.layers)),
        "versions": versions(),
    }


def warnings_of(card: dict[str, Any]) -> list[str]:
    """What somebody who measures with the checkpoint must not overlook."""
    said = [
        "Cost is that of the large shape; text, acceptance and losses are those of"
        f" {card['source']}. Report both together, never the text as a large model's.",
    ]
    if layers := card["inert_layers"]:
        said.append(
            f"Layers {layers[0]} to {layers[-1]} add exactly nothing. Do not measure layer"
            " skipping, early exits or layer pruning on it: they would find these layers for free."
            f" Inflate with --layers {card['source_shape']['layers']} for that."
        )
    if card["dtype"] == "bfloat16":
        said.append("bfloat16 rounds: the function is nearly the source's, not exactly.")
    return said


def page_of(card: dict[str, Any]) -> str:
    """The README beside the weights."""
    shape, real = card["shape"], card["real"]
    zeros = card["zeros"] / card["parameters"]
    lines = [
        f"# {card['source']}, inflated to {card['parameters'] / 1e6:.0f} M parameters",
        "",
        f"A {shape['layers']}-layer network of width {shape['hidden']} that computes the function"
        f" of {card['source']} ({card['source_parameters'] / 1e6:.2f} M parameters, fingerprint"
        f" {card['source_fingerprint']}). Made by `workbench zoo inflate`; nothing was trained.",
        "",
        *(f"- {line}" for line in warnings_of(card)),
        "",
        "## Which weights are real",
        "",
        f"- Stream: channels 0 to {real['channels'][1] - 1} hold {card['copies']} copies, the rest"
        " is zero. Readers take the shares "
        + ", ".join(f"{share:g}" for share in card["shares"])
        + ".",
        f"- Query heads {', '.join(map(str, real['query_heads']))}; key heads 0 to"
        f" {real['kv_heads'][1] - 1}; neurons 0 to {real['neurons'][1] - 1} of each MLP;"
        f" layers 0 to {real['layers'][1] - 1}.",
        f"- All other readers are random (seed {card['seed']}), all other writers zero:"
        f" {zeros:.1%} of the weights are zeros. Some GPUs draw less power on zeros and run"
        " faster.",
        "",
        "The numbers are in `card.json`.",
        "",
    ]
    return "\n".join(lines)
