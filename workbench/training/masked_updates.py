"""Weights that learn without giving their zeros back: the updates of PERP, and who has them.

*Idea*: an update lives in a parametrisation of the weight while it is trained, so passes, hooks and
losses see the weight that a merge will leave; leaving the parametrisation is the merge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from workbench.core.errors import BadKnob, Mismatch
from workbench.core.masks import MaskSet
from workbench.models.model import Model
from workbench.models.units import Matrix, expanded, layers_of, matrices

VARIANTS = ("none", "lora", "lora_prune", "scale_lora", "mask_lora", "full")


@dataclass(frozen=True)
class PerpSettings:
    """What is trained, and how long.

    Args:
        norms: the gains of every norm.
        variant: of the update of the matrices; ``lora`` fills the zeros when merged.
        rank: of the update; its scale is alpha / rank with alpha = 2 rank.
        steps: of AdamW; a tenth is warm-up, then the rate falls to zero.
        batch_rows: rows a step.
        learning_rate: peak; 0 = a good one for the variant.

    Raises:
        BadKnob: nothing to train, or an unknown variant.
    """

    norms: bool = True
    variant: str = "mask_lora"
    rank: int = 8
    steps: int = 100
    batch_rows: int = 8
    learning_rate: float = 0.0
    seed: int = 5

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise BadKnob(f"variant={self.variant!r}: choose one of {', '.join(VARIANTS)}")
        if self.variant == "none" and not self.norms:
            raise BadKnob("variant='none' with norms=False trains nothing; switch one of them on")
        if self.rank < 1 or self.steps < 1 or self.batch_rows < 1:
            raise BadKnob("rank, steps and batch_rows must be 1 or more")

    @property
    def rate(self) -> float:
        """The learning rate in use."""
        defaults = {"none": 2e-2, "full": 1e-3, "scale_lora": 3e-4}
        return self.learning_rate or defaults.get(self.variant, 3e-3)


class Update(nn.Module):
    """W -> what the variant makes of it; leaving the parametrisation merges it.

    Shapes: W and mask ``[out in]``, A ``[r in]``, B ``[out r]``.
    """

    def __init__(self, weight: torch.Tensor, mask: torch.Tensor, variant: str, rank: int):
        super().__init__()
        self.variant, self.scale = variant, 2.0
        self.register_buffer("mask", mask.to(weight))
        if variant == "full":
            return
        out, wide = weight.shape
        if variant == "scale_lora":
            start = torch.full((rank, wide), rank**-0.5)
            other = torch.full((out, rank), rank**-0.5)
        else:
            start = torch.empty(rank, wide)
            nn.init.kaiming_uniform_(start, a=5**0.5)
            other = torch.zeros(out, rank)
        self.a = nn.Parameter(start.to(weight))
        self.b = nn.Parameter(other.to(weight))
        self.merging = False

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.variant == "full":
            return weight * self.mask
        update = self.b @ self.a
        if self.variant == "scale_lora":
            return weight * update
        masked = self.variant == "mask_lora" or (self.variant == "lora_prune" and self.merging)
        return weight + self.scale * (self.mask * update if masked else update)


def norms_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """The gains (and shifts) of every norm: families name their classes differently."""
    found = {}
    for name, module in network.named_modules():
        if type(module).__name__.endswith("Norm"):
            for part, value in module.named_parameters(recurse=False):
                found[f"{name}.{part}"] = value
    return found


def linear_matrices(model: Model) -> list[Matrix]:
    """The matrices that an update can be put on."""
    return [one for one in matrices(model).values() if isinstance(one.module, nn.Linear)]


def _places(model: Model, variant: str) -> list[Matrix]:
    if variant == "none":
        return []
    found = linear_matrices(model)
    if not found:  # else only the norms would train, without a word
        raise Mismatch(
            f"variant={variant!r}: {model.name} keeps its matrices transposed or fused, where no"
            " update can be put on them; choose variant='none'"
        )
    return found


@contextmanager
def updated(
    model: Model, masks: MaskSet, settings: PerpSettings, layer: int | None = None
) -> Iterator[list[nn.Parameter]]:
    """The network with the chosen numbers trainable; on exit they are merged and frozen again.

    Args:
        layer: only what lies in this block.

    Raises:
        Mismatch: a variant that this family's matrices cannot have.
    """
    network, full = model.network, expanded(model, masks)
    network.requires_grad_(False)
    where = network if layer is None else layers_of(model)[layer]
    chosen: list[Any] = list(norms_of(where).values()) if settings.norms else []
    places = _places(model, settings.variant)
    places = [one for one in places if layer in (None, one.layer)]
    homes = [one.module.weight.data for one in places]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for one in places:
            kept = full.weights.get(one.name, torch.ones(one.weight.shape, dtype=torch.bool))
            update = Update(one.weight, kept, settings.variant, settings.rank)
            parametrize.register_parametrization(one.module, "weight", update, unsafe=True)
            if settings.variant == "full":
                chosen.append(one.module.parametrizations.weight.original)
            else:
                chosen += list(update.parameters())
    for number in chosen:
        number.requires_grad_(True)
    try:
        yield chosen
    finally:
        with torch.no_grad():
            for one, home in zip(places, homes, strict=True):
                one.module.parametrizations.weight[0].merging = True
                parametrize.remove_parametrizations(one.module, "weight")
                weight: Any = one.module.weight
                home.copy_(weight)  # torch gave it other memory, where no undo looks
                weight.data = home
        network.requires_grad_(False)
        network.eval()
