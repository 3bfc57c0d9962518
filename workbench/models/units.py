"""What can be pruned in a network: its matrices, and the neurons and KV groups that span several.

Matrices are those of the blocks only: linear layers in any spelling, and the slices of fused expert
tensors, one an expert. Embeddings, norms, routers and the head are never touched and do not count
in a sparsity. Neurons and groups need separate projections (gate/up/down, q/k/v/o).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from workbench.core.errors import ModelError
from workbench.core.masks import MaskSet
from workbench.core.pruning import Unit
from workbench.models.anatomy import longest_list
from workbench.models.model import Model

# The last matrix of a sub-layer, by family: with these at zero a layer is the identity.
OUTPUTS = {"o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "fc2"}
EXPERT_TENSORS = ("gate_up_proj", "down_proj")
ROUTERS = {"gate", "router", "shared_expert_gate"}


@dataclass(frozen=True, eq=False)
class Matrix:
    """One matrix of a block.

    ``weight`` is a view ``[out in]`` of the parameter, so changing it changes the network;
    ``expert`` says which slice of a fused tensor it is.
    """

    name: str
    layer: int
    module: nn.Module
    weight: torch.Tensor
    expert: int | None = None

    @property
    def role(self) -> str:
        """The last word of its name: ``q_proj``, ``down_proj``, ..."""
        return self.name.rsplit(".", 1)[-1].partition("[")[0]

    @property
    def bias(self) -> torch.Tensor | None:
        return None if self.expert is not None else getattr(self.module, "bias", None)


def layers_of(model: Model) -> nn.ModuleList | list:
    """The blocks, also of a family that is not in the anatomy table."""
    return model.anatomy.layers if model.anatomy is not None else longest_list(model.network)


def matrices(model: Model) -> dict[str, Matrix]:
    """Every matrix by name, in the order of the network."""
    names = {id(module): name for name, module in model.network.named_modules()}
    found = {}
    for index, layer in enumerate(layers_of(model)):
        for module in layer.modules():
            for one in _of_module(names[id(module)], index, module):
                found[one.name] = one
    return found


def _of_module(name: str, layer: int, module: nn.Module) -> Iterator[Matrix]:
    last = name.rsplit(".", 1)[-1]
    if "lora_" in name or last in ROUTERS:
        return
    name = name.removesuffix(".base_layer")
    if isinstance(module, nn.Linear):
        yield Matrix(name, layer, module, module.weight.detach())
    elif type(module).__name__ == "Conv1D":  # GPT-2 stores its matrices the other way round
        yield Matrix(name, layer, module, module.weight.detach().T)
    elif not getattr(module, "is_transposed", False):
        for part in EXPERT_TENSORS:
            fused = getattr(module, part, None)
            if isinstance(fused, torch.Tensor) and fused.dim() == 3:
                for expert, weight in enumerate(fused.detach()):
                    yield Matrix(f"{name}.{part}[{expert}]", layer, module, weight, expert)


@dataclass(frozen=True, eq=False)
class Parts:
    """The gated MLP and the attention of one layer, by projection; None where it has none."""

    layer: int
    mlp: dict[str, Matrix] | None  # gate, up, down
    attention: dict[str, Matrix] | None  # q, k, v, o
    neurons: int = 0
    groups: int = 0
    head_width: int = 0

    def rows(self, group: int, projection: str) -> slice:
        """The rows (of ``o``: the columns) that belong to a KV group."""
        attention = self.attention or {}
        side = 1 if projection == "o" else 0
        wide = attention[projection].weight.shape[side] // self.groups
        return slice(group * wide, (group + 1) * wide)


def parts_of(model: Model) -> list[Parts]:
    """The parts of every layer."""
    by_layer: dict[int, dict[str, Matrix]] = {}
    for one in matrices(model).values():
        if one.expert is None and "shared_expert" not in one.name:
            by_layer.setdefault(one.layer, {})[one.role] = one
    found = []
    for index, layer in enumerate(layers_of(model)):
        have = by_layer.get(index, {})
        mlp = _all_of(have, ("gate", "up", "down"))
        width = getattr(getattr(layer, "self_attn", None), "head_dim", 0)
        attention = _all_of(have, ("q", "k", "v", "o")) if width else None
        neurons = len(mlp["gate"].weight) if mlp else 0
        groups = len(attention["k"].weight) // width if attention else 0
        found.append(Parts(index, mlp, attention, neurons, groups, width))
    return found


def _all_of(have: dict[str, Matrix], parts: tuple[str, ...]) -> dict[str, Matrix] | None:
    found = {part: have[f"{part}_proj"] for part in parts if f"{part}_proj" in have}
    return found if len(found) == len(parts) else None


def units_of(model: Model, acts_on: str) -> list[Unit]:
    """What a pruner of this kind scores.

    Raises:
        ModelError: a family without such parts.
    """
    if acts_on == "weights":
        return [
            Unit(m.name, "weights", m.layer, {"weight": m.weight}, tuple(m.weight.shape))
            for m in matrices(model).values()
        ]
    if acts_on == "layers":
        return [Unit(f"layers.{i}", "layers", i, {}, (1,)) for i in range(len(layers_of(model)))]
    parts = parts_of(model)
    have = [p.mlp if acts_on == "neurons" else p.attention for p in parts]
    if not all(have):
        what = {
            "neurons": "a gated MLP of three matrices (gate, up, down)",
            "groups": "attention with separate q, k, v and o projections",
        }[acts_on]
        raise ModelError(
            f"{model.name}: removing {acts_on} needs {what} in every layer; choose a pruner of"
            " weights or of layers for this family"
        )
    return [
        Unit(
            f"{acts_on}.{one.layer}",
            acts_on,
            one.layer,
            {name: m.weight for name, m in matrices_.items()},
            (one.neurons if acts_on == "neurons" else one.groups,),
        )
        for one, matrices_ in zip(parts, have, strict=True)
    ]


def shapes_of(model: Model) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every mask that this network can have."""
    shapes: dict[str, tuple[int, ...]] = {
        name: tuple(one.weight.shape) for name, one in matrices(model).items()
    }
    for one in parts_of(model):
        if one.mlp:
            shapes[f"neurons.{one.layer}"] = (one.neurons,)
        if one.attention:
            shapes[f"groups.{one.layer}"] = (one.groups,)
    return {**shapes, "layers": (len(layers_of(model)),)}


def expanded(model: Model, masks: MaskSet) -> MaskSet:
    """The same mask with its parts written out as weights: what is really at zero."""
    every = matrices(model)
    grown = dict(masks.weights)

    def drop(one: Matrix, rows: torch.Tensor | None, columns: torch.Tensor | None) -> None:
        if one.name not in grown:
            grown[one.name] = torch.ones(one.weight.shape, dtype=torch.bool)
        mask = grown[one.name] = grown[one.name].clone()
        if rows is not None:
            mask[rows] = False
        if columns is not None:
            mask[:, columns] = False

    for one in parts_of(model):
        neurons, groups = (masks.parts.get(f"{k}.{one.layer}") for k in ("neurons", "groups"))
        if neurons is not None and one.mlp:
            gone = ~neurons.cpu()
            drop(one.mlp["gate"], gone, None)
            drop(one.mlp["up"], gone, None)
            drop(one.mlp["down"], None, gone)
        if groups is not None and one.attention:
            for name, matrix in one.attention.items():
                side = 1 if name == "o" else 0
                wide = matrix.weight.shape[side] // one.groups
                gone = (~groups.cpu()).repeat_interleave(wide)
                drop(matrix, *((None, gone) if name == "o" else (gone, None)))
    if "layers" in masks.parts:
        lost = {i for i, kept in enumerate(masks.parts["layers"].tolist()) if not kept}
        for matrix in every.values():
            if matrix.layer in lost:  # those that write would do; the rest is idle then
                drop(matrix, torch.ones(len(matrix.weight), dtype=torch.bool), None)
    return MaskSet(grown, masks.parts, masks.fingerprint, masks.note)
