"""A masked network cut down to what is left of it: a checkpoint that is really smaller.

Layers are taken out. Neurons and KV groups are cut to the number that the fullest layer keeps,
because transformers builds every layer alike; a layer that keeps fewer is filled up with zeros,
which change nothing. Logits are those of the masked network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.core.errors import BadInput, ModelError
from workbench.core.inference import inference_mode
from workbench.core.masks import MaskSet
from workbench.models.anatomy import anatomy_of
from workbench.models.masking import apply_masks
from workbench.models.model import Model
from workbench.models.units import Parts, layers_of, parts_of, shapes_of
from workbench.models.virtual_tokens import VirtualTokens


@dataclass(frozen=True)
class Cut:
    """What the slices hold.

    Args:
        layers: indices of the layers that stay.
        neurons, groups: kept indices by old layer; absent where nothing of the kind is cut.
        wide: neurons of every sliced layer.
        heads: KV groups of every sliced layer.
    """

    layers: tuple[int, ...]
    neurons: dict[int, list[int]]
    groups: dict[int, list[int]]
    wide: int | None
    heads: int | None


def cut_of(model: Model, masks: MaskSet) -> Cut:
    """What can be taken out; zeros that are no whole parts stay zeros.

    Raises:
        BadInput: masks of another network, or nothing that can be taken out.
    """
    masks.check(shapes_of(model))
    parts = parts_of(model)
    flags = masks.parts.get("layers", torch.ones(len(parts), dtype=torch.bool)).tolist()
    layers = tuple(i for i, kept in enumerate(flags) if kept)
    if not layers:
        raise BadInput("mask: drops every layer; keep at least one")
    found: dict[str, dict[int, list[int]]] = {}
    for kind in ("neurons", "groups"):
        if any(f"{kind}.{i}" in masks.parts for i in layers):
            whole = {i: torch.ones(getattr(parts[i], kind), dtype=torch.bool) for i in layers}
            kept = {i: masks.parts.get(f"{kind}.{i}", whole[i]) for i in layers}
            found[kind] = {i: mask.nonzero().flatten().tolist() for i, mask in kept.items()}
    found = {
        kind: kept
        for kind, kept in found.items()
        if max(map(len, kept.values())) < max(getattr(parts[i], kind) for i in layers)
    }
    if not found and len(layers) == len(parts):
        raise BadInput(
            "mask: removes no whole neuron, head or layer from every layer, so nothing can be taken"
            " out (zeros save no memory in a dense matrix); choose cfsp, heads or layers"
        )
    most = {kind: max(1, *map(len, kept.values())) for kind, kept in found.items()}
    empty: dict[int, list[int]] = {}
    return Cut(
        layers,
        found.get("neurons", empty),
        found.get("groups", empty),
        most.get("neurons"),
        most.get("groups"),
    )


@torch.no_grad()
def sliced(model: Model, masks: MaskSet, weights: Any = None) -> Model:
    """The smaller model; ``model`` is as it was afterwards.

    Args:
        masks: whose whole parts are taken out; its single zeros are zeros in the slices too.
        weights: as of :func:`workbench.models.masking.apply_masks`.

    Raises:
        BadInput: see :func:`cut_of`; a network with adapters on it.
        ModelError: a configuration that cannot express the smaller shape.
    """
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    adapted = any(name.endswith(".base_layer") for name, _ in model.network.named_modules())
    if adapted or VirtualTokens.of(model.network) is not None:
        raise BadInput(
            f"{model.name}: has adapters on it, and what they add does not shrink with the weights;"
            " detach or merge them first, or keep the mask"
        )
    cut = cut_of(model, masks)
    config = _config(model, cut)
    with apply_masks(model, masks, weights), inference_mode(False), no_init_weights():
        small = AutoModelForCausalLM.from_config(config, dtype=model.torch_dtype)
        state = _state(model, cut)
        small.tie_weights()
        _fill(small, state, model.name)
    small = small.to(model.torch_device).eval().requires_grad_(False)
    small.generation_config = copy.deepcopy(model.network.generation_config)
    anatomy = anatomy_of(small)
    ways = (model.mode, model.reason, model.trees)  # the same family: the same passes agree
    return Model(f"{model.name} sliced", small, model.tokenizer, anatomy, *ways)


def save_sliced(model: Model, masks: MaskSet, folder: Path, weights: Any = None) -> Model:
    """Slice and write a checkpoint with its tokenizer, which transformers loads as any other.

    Raises:
        BadInput: a folder that already holds a checkpoint.
    """
    folder = Path(folder).expanduser()
    if (folder / "config.json").exists():
        raise BadInput(f"folder={str(folder)!r}: already holds a checkpoint; name another one")
    made = sliced(model, masks, weights)
    tokenizer: Any = made.tokenizer
    made.network.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return made


def _fill(small: Any, state: dict[str, torch.Tensor], name: str) -> None:
    try:
        missing, unknown = small.load_state_dict(state, strict=False)
    except RuntimeError as error:  # tensors of another shape
        wrong = str(error).splitlines()[1].strip()
        raise ModelError(
            f"{name}: the configuration of this family cannot express the smaller shape"
            f" ({wrong[:160]}); save the mask instead"
        ) from None
    lost = [key for key in missing if key not in _tied(small)]
    if lost or unknown:
        raise ModelError(
            f"{name}: the sliced network has no place for {(lost or unknown)[0]}; save the mask"
            " instead"
        )


def _tied(network: Any) -> set[str]:
    """Names whose tensor is another name's: a tied head is not stored twice."""
    seen: dict[int, str] = {}
    tied = set()
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() in seen:
            tied |= {name, seen[tensor.data_ptr()]}
        seen[tensor.data_ptr()] = name
    return tied


def _config(model: Model, cut: Cut) -> Any:
    config = copy.deepcopy(model.network.config)
    text = config.get_text_config()
    count, size = len(parts_of(model)), parts_of(model)[0]
    for key, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == count:  # one entry a layer, e.g. layer_types
            setattr(text, key, [value[i] for i in cut.layers])
    text.num_hidden_layers = len(cut.layers)
    if cut.wide is not None:
        text.intermediate_size = cut.wide
    if cut.heads is not None:
        shared = text.num_attention_heads // size.groups
        text.head_dim = size.head_width
        text.num_attention_heads = cut.heads * shared
        text.num_key_value_heads = cut.heads
    return config


def _state(model: Model, cut: Cut) -> dict[str, torch.Tensor]:
    state = dict(model.network.state_dict())
    parts = parts_of(model)
    for old in cut.layers:
        if cut.wide is not None:
            _cut_neurons(state, parts[old], cut.neurons[old], cut.wide)
        if cut.heads is not None:
            _cut_groups(state, parts[old], cut.groups[old], cut.heads)
    return _renumbered(model, state, cut)


def _cut_neurons(state: dict, parts: Parts, kept: list[int], wide: int) -> None:
    mlp = parts.mlp or {}
    for name in ("gate", "up"):
        _cut(state, mlp[name].name, kept, wide, rows=True)
    _cut(state, mlp["down"].name, kept, wide, rows=False)


def _cut_groups(state: dict, parts: Parts, groups: list[int], heads: int) -> None:
    for name, matrix in (parts.attention or {}).items():
        side = 1 if name == "o" else 0
        per = matrix.weight.shape[side] // parts.groups
        kept = [g * per + offset for g in groups for offset in range(per)]
        _cut(state, matrix.name, kept, heads * per, rows=name != "o")


def _cut(state: dict, name: str, kept: list[int], size: int, rows: bool) -> None:
    """Take rows (or columns) of a matrix, filled up with zeros to ``size``; its bias likewise."""
    for key, side in ((f"{name}.weight", 0 if rows else 1), (f"{name}.bias", 0)):
        if key not in state or (key.endswith("bias") and not rows):
            continue
        old = state[key]
        shape = list(old.shape)
        shape[side] = size
        new = old.new_zeros(shape)
        new.narrow(side, 0, len(kept)).copy_(old.index_select(side, torch.tensor(kept).long()))
        state[key] = new


def _renumbered(model: Model, state: dict, cut: Cut) -> dict[str, torch.Tensor]:
    """Names of the layers that stay, counted anew."""
    names = {id(module): name for name, module in model.network.named_modules()}
    places = {names[id(layer)] + ".": i for i, layer in enumerate(layers_of(model))}
    root = next(iter(places)).rsplit(".", 2)[0]
    new = {old: at for at, old in enumerate(cut.layers)}
    made = {}
    for key, value in state.items():
        if not key.startswith(f"{root}."):
            made[key] = value
            continue
        number, _, rest = key.removeprefix(f"{root}.").partition(".")
        if not number.isdigit():
            made[key] = value
        elif int(number) in new:
            made[f"{root}.{new[int(number)]}.{rest}"] = value
    return made
