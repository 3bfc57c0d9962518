"""What an adapter method and an operation on adapters are, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from workbench.core.errors import BadKnob, closest

TARGETS = ("query and value", "attention", "mlp", "all linear")


class TargetShape(NamedTuple):
    """One weight matrix that an adapter may change; ``layer`` is -1 outside the layers."""

    name: str
    layer: int
    d_in: int
    d_out: int

    @property
    def leaf(self) -> str:
        """The last part of the name, e.g. ``q_proj``."""
        return self.name.rpartition(".")[2]


class AdapterMethod(Protocol):
    """A method of the family ``adapter``: knobs, and the peft configuration that they mean.

    ``zero_init``: attaching it changes no logit. ``linear``: it is a constant change of each
    weight, so it can be merged. A method that puts virtual tokens in front of every text has
    ``virtual = True``; it changes no module and has no strength by layer.
    """

    name: str
    zero_init: bool
    linear: bool

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """The peft configuration for a model with these matrices."""
        ...

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """What a formula says of the number of trainable parameters."""
        ...


class Companion(Protocol):
    """What a method does beside the optimiser while it is trained; made by ``companion``.

    A method has ``companion(network, name) -> Companion`` only if it needs one.
    """

    def extra_loss(self) -> Any:
        """A 0-d tensor to add to the loss of the pass just made, or None."""
        ...

    def after_backward(self, step: int) -> None:
        """Gradients are there, the weights have not moved yet."""
        ...

    def after_step(self, step: int) -> None:
        """The weights have moved; ``step`` counts from 1."""
        ...

    def report(self) -> dict[str, Any]:
        """What pictures show of it now."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint must hold, as JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...

    def close(self) -> None:
        """Training is over, however it ended: leave the network's passes alone."""
        ...

    def finish(self, config: Any) -> None:
        """Bring what was learnt and the configuration into their final form."""
        ...


class Operation(Protocol):
    """A method of the family ``operation``: from attached adapters to a new one.

    ``many``: takes several adapters at once.
    """

    name: str
    many: bool

    def combine(self, adapters: Any, names: Sequence[str], name: str) -> dict[str, Any]:
        """Attach the result as ``name``; returns what there is to know (bytes, error, warning)."""
        ...


def chosen(shapes: Sequence[TargetShape], targets: str, modules: str = "") -> list[TargetShape]:
    """The matrices that a targets knob means.

    Args:
        targets: one of :data:`TARGETS`.
        modules: names separated by commas; where there are any, they take the place of ``targets``.

    Raises:
        BadKnob: no such matrix, with the closest names.
    """
    inside = [shape for shape in shapes if shape.layer >= 0]
    leaves = dict.fromkeys(shape.leaf for shape in inside)
    if modules.strip():
        wanted = [part.strip() for part in modules.split(",") if part.strip()]
        for name in wanted:
            if not any(_named(shape, name) for shape in shapes):
                raise BadKnob(
                    f"modules={name!r}: this model has no such matrix.{closest(name, leaves)}"
                    f" It has: {', '.join(leaves)}"
                )
        return [shape for shape in shapes if any(_named(shape, name) for name in wanted)]
    groups = {
        "query and value": lambda s: s.leaf in ("q_proj", "v_proj", *_FUSED_ATTENTION),
        "attention": _attends,
        "mlp": lambda s: not _attends(s),
        "all linear": lambda s: True,
    }
    found = [shape for shape in inside if groups[targets](shape)]
    if not found:
        raise BadKnob(
            f"targets={targets!r}: this model has no such matrix; it has {', '.join(leaves)}"
            " (experts stored as one block are not adapted), name some under modules"
        )
    return found


def module_names(shapes: Sequence[TargetShape], wanted: Sequence[TargetShape]) -> list[str]:
    """The shortest names that mean exactly these matrices: leaves where that is enough."""
    names = {shape.name for shape in wanted}
    leaves = {shape.leaf for shape in wanted}
    meant = {shape.name for shape in shapes if shape.leaf in leaves}
    return sorted(leaves if meant == names else names)


_FUSED_ATTENTION = ("qkv_proj", "query_key_value", "c_attn", "Wqkv")


def _attends(shape: TargetShape) -> bool:
    return "attn" in shape.name.lower() or "attention" in shape.name.lower()


def _named(shape: TargetShape, name: str) -> bool:
    return shape.name == name or shape.name.endswith("." + name)


def key_value_width(shapes: Sequence[TargetShape]) -> int:
    """How many numbers the keys of one token are, in the layer that comes first.

    Raises:
        BadKnob: a model whose attention is not known here.
    """
    own = [s for s in shapes if s.layer == 0 and _attends(s)]
    keys = [s for s in own if s.leaf == "k_proj"]
    if keys:
        return keys[0].d_out
    fused = [s for s in own if s.leaf in _FUSED_ATTENTION]
    outputs = [s for s in own if s.leaf not in _FUSED_ATTENTION]
    if len(fused) != 1 or len(outputs) != 1:
        raise BadKnob("prefix: this model has no key matrix that is known here")
    return (fused[0].d_out - outputs[0].d_in) // 2  # queries are as wide as the output's input
