"""Masks put on a network in place, and taken off again to the last bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from workbench.core.errors import BadInput, closest
from workbench.core.masks import MaskSet
from workbench.models.model import Model
from workbench.models.units import OUTPUTS, Matrix, expanded, matrices, parts_of, shapes_of


class Edit:
    """Remembers what tensors held before they were changed.

    *Idea*: a removed weight is a zero in place, so every pass, adapter and hook sees the mask
    without knowing of it, and undo copies the originals back: nothing is computed, so nothing is
    rounded.
    """

    def __init__(self) -> None:
        self._before: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor``, whose content is now safe."""
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if key not in self._before:
            self._before[key] = (tensor, tensor.clone())
        return tensor

    def before(self, tensor: torch.Tensor) -> torch.Tensor:
        """What a tensor held when it was first kept; itself if it never was."""
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        return self._before[key][1] if key in self._before else tensor

    @torch.no_grad()
    def put(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """Write a value into a tensor of the network."""
        self.keep(tensor).copy_(value)

    @torch.no_grad()
    def undo(self) -> None:
        """Everything as it was."""
        for tensor, old in reversed(self._before.values()):
            tensor.copy_(old)
        self._before = {}

    def __bool__(self) -> bool:
        return bool(self._before)

    def __enter__(self) -> Edit:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


def apply_masks(
    model: Model,
    masks: MaskSet,
    weights: Mapping[str, torch.Tensor] | None = None,
    edit: Edit | None = None,
) -> Edit:
    """Zero in place what the masks do not keep.

    Args:
        masks: of this network.
        weights: matrices, or parameters by their full name (gains of norms), that replace the
            original ones where they are kept (SparseGPT, PERP).
        edit: to go on with; the way back is in the one returned.

    Raises:
        BadInput: masks or weights that do not fit the network; nothing is changed then.
    """
    masks.check(shapes_of(model))
    edit = Edit() if edit is None else edit
    every, full = matrices(model), expanded(model, masks)
    for tensor, value in check_weights(model, weights or {}):
        edit.put(tensor, value.to(tensor.device))
    for name, mask in full.weights.items():
        if not bool(mask.all()):
            tensor = every[name].weight
            edit.put(tensor, torch.where(mask.to(tensor.device), tensor, 0))
    for matrix, gone in _biases(model, masks):
        if matrix.bias is not None and bool(gone.any()):
            bias = matrix.bias.detach()
            edit.put(bias, torch.where(gone.to(bias.device), 0, bias))
    return edit


def check_weights(
    model: Model, weights: Mapping[str, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tensors of the network, and what they are to hold.

    Raises:
        BadInput: a weight that the network does not have, or of another shape.
    """
    own = {name: one.weight for name, one in matrices(model).items()}
    own |= {name: value.detach() for name, value in model.network.named_parameters()}
    for name, value in weights.items():
        if name not in own:
            raise BadInput(f"weights: this network has no {name!r}.{closest(name, own)}")
        if value.shape != own[name].shape:
            raise BadInput(
                f"weights: {name!r} is {tuple(value.shape)}, but the network's is"
                f" {tuple(own[name].shape)}"
            )
    return [(own[name], value) for name, value in weights.items()]


def _biases(model: Model, masks: MaskSet) -> list[tuple[Matrix, torch.Tensor]]:
    """Biases of what goes: a neuron, group or layer without weights must not speak either."""
    found = []
    for one in parts_of(model):
        neurons, groups = (masks.parts.get(f"{k}.{one.layer}") for k in ("neurons", "groups"))
        if neurons is not None and one.mlp:
            found += [(one.mlp[name], ~neurons) for name in ("gate", "up")]
        if groups is not None and one.attention:
            for name in ("q", "k", "v"):
                wide = len(one.attention[name].weight) // one.groups
                found.append((one.attention[name], (~groups).repeat_interleave(wide)))
    if "layers" in masks.parts:
        kept = masks.parts["layers"].tolist()
        for matrix in matrices(model).values():
            if not kept[matrix.layer] and matrix.role in OUTPUTS:
                found.append((matrix, torch.ones(len(matrix.weight), dtype=torch.bool)))
    return found
