"""What must be known of a configuration and its layers before and after peft has its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from torch import nn

from workbench.core.adapter import TargetShape
from workbench.core.errors import BadKnob, closest
from workbench.models.targets import shape_of
from workbench.models.tuners.registering import LinearLayer

_LEAVES_BASE_ALONE = {"LORA", "IA3", "LN_TUNING", "LOHA", "LOKR", "MOLA", "GROWING"}
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal")
_RANKED = {"LORA", "ADALORA", "MOLA", "GROWING"}  # whose r is the rank of an update


def kind_of(config: Any) -> str:
    """The name of a configuration's type, e.g. ``LORA``."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def outer_name(path: str) -> str:
    """A path as it is where its adapter is the only one on its module."""
    return ".".join(part for part in path.split(".") if part != "base_layer")


def leaves_base_alone(config: Any) -> bool:
    """Whether attaching surely writes no weight of the base; PiSSA and the like do."""
    plain = getattr(config, "init_lora_weights", None) in _PLAIN_STARTS
    return kind_of(config) in _LEAVES_BASE_ALONE and plain


def scales(layer: Any, name: str) -> bool:
    """Whether multiplying the adapter's ``scaling`` is multiplying its update."""
    if isinstance(layer, LoraLayer):
        return name in layer.scaling and name not in getattr(layer, "lora_variant", {})
    return isinstance(layer, (LycorisLayer, LinearLayer)) and name in layer.scaling


def check_targets(config: Any, network: nn.Module, shapes: Sequence[TargetShape]) -> None:
    """Every listed target must exist; peft itself only minds when none does.

    Raises:
        BadKnob: with the closest name.
    """
    wanted = getattr(config, "target_modules", None)
    if isinstance(wanted, str) or not wanted:
        return
    plain = [outer_name(path) for path, _ in network.named_modules()]
    matrices = list(dict.fromkeys(shape.leaf for shape in shapes))
    for target in sorted(wanted):
        if not any(path == target or path.endswith("." + target) for path in plain):
            leaves = [path.rpartition(".")[2] for path in plain]
            raise BadKnob(
                f"target_modules={target!r}: the model has no such module."
                f"{closest(target, [*matrices, *leaves])} Matrices: {', '.join(matrices)}"
            )


def check_ranks(config: Any, name: str, layers: Iterable[tuple[str, Any]]) -> None:
    """An update of a matrix has no rank above its smaller side.

    Raises:
        BadKnob: naming the matrix, its size and the largest rank.
    """
    if kind_of(config) not in _RANKED:
        return
    for path, layer in layers:
        size = shape_of(layer.get_base_layer())
        ranks = getattr(layer, "r", {})
        rank = (ranks.get(name) if isinstance(ranks, dict) else None) or config.r
        if size and rank > min(size):
            raise BadKnob(
                f"r={rank}: {path} is {size[1]} x {size[0]}, and no update of it has a rank above"
                f" {min(size)}; choose r <= {min(size)}"
            )
