"""Recover a network that lost whole parts: LoRA whose ranks follow how much each block matters.

*Idea*: CFSP's second half. A block that turns its input far gets a larger share of the ranks, as it
got a larger share of the neurons. What was taken out stays out: the update has no number where the
mask has no row or column, so it can be merged, cut out and taken off.

*Paper*: CFSP (Wang et al. 2024, arXiv 2409.13199), importance-guided recovery. Its code is not
published and the summary gives no formula.

*Deviations*: rank of block l in proportion to I_l, at least 1: R L I_l / sum I, rounded by largest
remainders so that the mean rank is exactly R (rounding each alone would not keep it); no rank
exceeds the smallest side of its matrices. I_l is the mean angle of the dense network's blocks, as
in the pruner. alpha is twice the rank in every block, so that rank is not strength. Trained on the
masked network instead of the cut-out one: its function is the same. Single zeros have no rows and
columns that could be left out, so masks of weights are refused.

Neighbouring rows are of a few files, and at a high rate those are learnt instead of the damage
repaired: on the embedded target the held-out loss then rises, that of the dense network too. Hence
:data:`RATE` and rows from all over the text (:func:`workbench.models.calibrate.spread_rows`). What
that recovers, and that equal ranks do as well, is in `docs/claims.md`; part of it is training that
helps the dense network, too.

*Cost*: as LoRA of rank R on every matrix of the blocks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.core.adapter import TargetShape, chosen
from workbench.core.errors import BadInput, BadKnob, Mismatch
from workbench.core.inference import inference_mode
from workbench.core.masks import MaskSet
from workbench.core.pruning import Stats, shares
from workbench.models.adapter_forms import peft_config
from workbench.models.adapting import Adapters
from workbench.models.model import Model
from workbench.models.units import expanded, matrices
from workbench.models.updates import deltas
from workbench.training.adapter import AdapterProgress, AdapterSettings, train_adapter
from workbench.training.perp import Recovery, changed_since, zeros_of
from workbench.training.texts import Texts

NAME = "recovery"
SCALE = 2.0  # alpha / rank
RATE = 1e-3  # peak learning rate; see the module's docstring


def importance_of(stats: Mapping[str, Stats], layers: int) -> list[float]:
    """How far each block turns its input, in half turns a token, from statistics of the dense."""
    blocks = [stats[f"layers.{index}"] for index in range(layers)]
    return [one.turn / max(1, one.tokens) for one in blocks]


def block_ranks(importance: Sequence[float], rank: int, most: int) -> list[int]:
    """The rank of each block: in proportion to its importance, their mean exactly ``rank``.

    Args:
        importance: of each block, 0 or more.
        rank: mean rank.
        most: no block has more.

    Raises:
        BadKnob: a mean rank below 1 or above ``most``.
    """
    if not 1 <= rank <= most:
        raise BadKnob(f"rank={rank}: must lie in [1, {most}], the smallest side of a matrix")
    return shares(list(importance), rank * len(importance), most)


@dataclass(frozen=True, eq=False)
class ImportanceLora:
    """The recipe as an adapter method: its peft configuration.

    Args:
        masks: of the network, with its parts written out as weights; :func:`recipe_for` does it.
        importance: of each block.
        rank: mean rank.
    """

    masks: MaskSet
    importance: tuple[float, ...]
    rank: int = 8

    def shapes(self, shapes: Sequence[TargetShape]) -> list[TargetShape]:
        """The matrices that are updated: those of the blocks that are left."""
        kept = self.masks.parts.get("layers")
        inside = chosen(shapes, "all linear")
        return [one for one in inside if kept is None or bool(kept[one.layer])]

    def ranks(self, shapes: Sequence[TargetShape]) -> dict[str, int]:
        """Rank of every matrix, by name."""
        wanted = self.shapes(shapes)
        layers = sorted({one.layer for one in wanted})
        least = min(min(one.d_in, one.d_out) for one in wanted)
        ranks = block_ranks([self.importance[layer] for layer in layers], self.rank, least)
        by_layer = dict(zip(layers, ranks, strict=True))
        return {one.name: by_layer[one.layer] for one in wanted}

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """peft's LoraConfig, with a rank and an alpha for each matrix."""
        ranks = self.ranks(shapes)
        return peft_config(
            "LORA",
            r=self.rank,
            lora_alpha=SCALE * self.rank,
            target_modules=sorted(ranks),
            rank_pattern=dict(ranks),
            alpha_pattern={name: SCALE * rank for name, rank in ranks.items()},
        )

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """Sum of r_l (d_in + d_out)."""
        ranks = self.ranks(shapes)
        return sum(ranks[s.name] * (s.d_in + s.d_out) for s in self.shapes(shapes))


def recipe_for(
    model: Model, masks: MaskSet, importance: Sequence[float], rank: int = 8
) -> ImportanceLora:
    """The recipe for a network and the masks of its parts.

    Raises:
        Mismatch: masks of single weights.
    """
    if masks.weights:
        raise Mismatch(
            "masks: hold single weights, whose zeros a LoRA would fill; retrain with MaskLoRA"
            " (perp), or prune whole parts (cfsp, heads, layers)"
        )
    return ImportanceLora(expanded(model, masks), tuple(importance), rank)


@torch.no_grad()
def clear(network: nn.Module, masks: MaskSet, name: str) -> None:
    """Make a fresh adapter's A zero in the columns that the mask lacks.

    That is enough: what has gone is silent, so such a column hears zeros and has no gradient; and
    what it would write to reads a column of zeros, so rows that are gone have none either.
    """
    for path, layer in network.named_modules():
        mask = masks.weights.get(path)
        if mask is not None and name in getattr(layer, "lora_A", ()):
            weight = layer.lora_A[name].weight
            weight.mul_(mask.any(0).to(weight.device))


def recover(
    model: Model,
    recipe: ImportanceLora,
    texts: Texts,
    settings: AdapterSettings | None = None,
    *,
    folder: Path | None = None,
    listener: Callable[[AdapterProgress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Recovery:
    """Train the adapter on a network that the masks are applied to, and merge it.

    Args:
        texts: rows from all over the text (:func:`workbench.models.calibrate.spread_rows`).
        settings: None = :data:`RATE` and an adapter training's defaults.
        folder: for checkpoints, which a later call goes on from, and the adapter itself, which
            peft loads on the masked or the plain base; None = nothing is kept.

    Raises:
        BadKnob: a mean rank larger than a matrix.
        BadInput: adapters that are on the network already.
    """
    settings, network = settings or AdapterSettings(learning_rate=RATE), model.network
    if any(name.endswith(".base_layer") for name, _ in network.named_modules()):
        raise BadInput(f"{model.name}: has adapters on it already; detach or merge them first")
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    found = Recovery(zeros_before=zeros_of(model, recipe.masks))
    adapters = Adapters(model)
    with inference_mode(False), tempfile.TemporaryDirectory() as nowhere:
        place = folder or Path(nowhere)
        adapters.attach(recipe.config(adapters.shapes), NAME, settings.seed)
        clear(network, recipe.masks, NAME)
        try:
            found.trainable = adapters.parameter_count(NAME)
            progress = train_adapter(
                adapters, NAME, recipe, texts, settings, place, None, listener, stopped
            )
            if folder is not None:
                adapters.save(NAME, folder / "adapter")
            changes = {k: v.detach().clone() for k, v in deltas(adapters, NAME).items()}
        finally:
            adapters.detach()
    with torch.no_grad():
        every = matrices(model)
        for name, change in changes.items():
            every[name].weight.add_(change)
    found.curve, found.note = list(progress.curve), progress.note
    if not found.note and progress.step < settings.steps:
        found.note = f"Stopped after {progress.step} of {settings.steps} steps."
    found.zeros_after = zeros_of(model, recipe.masks)
    found.tensors = changed_since(before, network)
    return found


def uniform(recipe: ImportanceLora) -> ImportanceLora:
    """The same with equal ranks: the control."""
    return replace(recipe, importance=tuple(1.0 for _ in recipe.importance))
