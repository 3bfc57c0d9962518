"""What an adapter does to the weights: updates, their size layer by layer, their spectrum.

Virtual tokens change no weight; their keys and values take the place of updates in the pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.lora import LoraLayer

from workbench.core.errors import Mismatch
from workbench.models.adapter_checks import outer_name
from workbench.models.adapting import Adapters
from workbench.models.targets import layer_of, shape_of
from workbench.models.tuners.registering import LinearLayer


@torch.no_grad()
def deltas(adapters: Adapters, name: str) -> dict[str, Float[torch.Tensor, "o i"]]:
    """Module path -> change of its weight at the strength that is set, ``[d_out d_in]``.

    LoRA and its kin say it; of any other tuner the change is read off its outputs, by sending the
    unit vectors through the layer and through its base. A mixture (MoLA) has no constant change:
    the mean over its experts stands for it. Layers that are no matrices are left out, and so is
    what IA3 does to the bias of a matrix that has one.

    Cost: for tuners that do not say it, a pass of d_in rows through each changed matrix.

    Raises:
        Mismatch: virtual tokens, which change no weight.
    """
    if adapters.config(name).is_prompt_learning:
        raise Mismatch(
            f"adapter={name!r} puts virtual tokens in front of the text and changes no weight, so"
            " there is nothing to merge or add; put it on beside the others instead"
        )
    found = {}
    for path, layer in adapters.layers(name):
        if shape_of(layer.get_base_layer()) is not None:
            found[outer_name(path)] = _delta(adapters, name, layer)
    return found


def _delta(adapters: Adapters, name: str, layer: Any) -> torch.Tensor:
    plain = isinstance(layer, LoraLayer) and name not in getattr(layer, "lora_variant", {})
    if plain or isinstance(layer, LinearLayer):
        delta = layer.get_delta_weight(name)
        return delta.T if getattr(layer, "fan_in_fan_out", False) else delta
    return _read_off(adapters, name, layer)


def _read_off(adapters: Adapters, name: str, layer: Any) -> torch.Tensor:
    width = shape_of(layer.get_base_layer())
    assert width is not None  # asked by the caller
    weight = layer.get_base_layer().weight
    unit = torch.eye(width[0], dtype=weight.dtype, device=weight.device)
    rows = torch.cat((unit, torch.zeros_like(unit[:1])))
    with adapters.alone(name):
        change = layer(rows) - layer.base_layer(rows)
    return (change[:-1] - change[-1]).T  # nothing in is what it does to the bias


def _changes(adapters: Adapters, name: str) -> dict[str, torch.Tensor]:
    """The updates; of virtual tokens their keys and values, ``[n heads x d]`` each."""
    if not adapters.config(name).is_prompt_learning:
        return deltas(adapters, name)
    virtual = adapters.virtual_keys(name)
    if virtual is None:  # strength 0
        return {}
    return {
        f"layers.{layer}.virtual {what}": rows[0].transpose(0, 1).flatten(1)
        for layer, pair in enumerate(virtual.layers)
        for what, rows in zip(("keys", "values"), pair, strict=True)
    }


def layer_norms(adapters: Adapters, name: str) -> dict[int, float]:
    """Layer -> Frobenius norm of all its updates together (-1 = outside the layers).

    Of virtual tokens: of their keys and values.
    """
    squares: dict[int, float] = {}
    for path, delta in _changes(adapters, name).items():
        layer = layer_of(path)
        squares[layer] = squares.get(layer, 0.0) + float(delta.float().square().sum())
    return {layer: total**0.5 for layer, total in sorted(squares.items())}


def spectra(
    adapters: Adapters, name: str, layer: int, most: int = 32
) -> dict[str, tuple[float, ...]]:
    """Module -> its update's largest singular values in one layer, largest first."""
    found = {}
    for path, delta in _changes(adapters, name).items():
        if layer_of(path) == layer:
            values = torch.linalg.svdvals(_precise(delta))[:most]
            found[path.rpartition(".")[2]] = tuple(values.tolist())
    return found


def from_deltas(
    adapters: Adapters, updates: dict[str, torch.Tensor], rank: int, name: str
) -> float:
    """Attach a LoRA whose updates are the best of this rank; returns the relative error.

    Args:
        updates: module path -> ``[d_out d_in]``.
        rank: of each; 0 = the full rank of each matrix.

    Raises:
        Mismatch: no update at all.
    """
    from workbench.models.adapter_forms import peft_config

    if not updates:
        raise Mismatch("updates: is empty; the adapters change no matrix")
    ranks = {path: min(rank or 1 << 30, *delta.shape) for path, delta in updates.items()}
    most = max(ranks.values())
    tensors, lost, total = {}, 0.0, 0.0
    for path, delta in updates.items():
        left, values, right = torch.linalg.svd(_precise(delta), full_matrices=False)
        kept, root = ranks[path], values[: ranks[path]].sqrt()
        tensors[f"base_model.model.{path}.lora_A.weight"] = root[:, None] * right[:kept]
        tensors[f"base_model.model.{path}.lora_B.weight"] = left[:, :kept] * root
        lost += float(values[kept:].square().sum())
        total += float(values.square().sum())
    config = peft_config(
        "LORA",
        r=most,
        lora_alpha=most,
        target_modules=sorted(updates),
        rank_pattern={path: r for path, r in ranks.items() if r != most},
        alpha_pattern={path: r for path, r in ranks.items() if r != most},
    )
    kind = next(iter(updates.values())).dtype
    adapters.put(config, {key: value.to(kind) for key, value in tensors.items()}, name)
    return (lost / total) ** 0.5 if total else 0.0


def _precise(delta: torch.Tensor) -> torch.Tensor:
    """In single precision at least; decompositions know no halves."""
    return delta if delta.dtype == torch.float64 else delta.float()
