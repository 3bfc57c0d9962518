"""Repair a pruned network block by block: each is fitted to what the dense one made of its input.

*Idea*: a block's error can be repaired without a loss over the whole network: one block at a time
is called, so the memory is that of a block, and the text need not be labelled with anything.

*Paper*: Zimmer et al. 2023 (arXiv 2312.15230), reconstruction mode: for each block minimise
mean ||f(x; W') - f_dense(x)||^2, where x is what the already pruned and repaired blocks give, and
refresh x through the repaired block.

*Deviations*: a block whose error did not fall is left as it was. The norm after the last block
belongs to no block and is not trained. Batches are those of the calibration walk.

*Cost*: ``steps`` passes forward and backward through each block, and three forward ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch.nn import functional as F

from workbench.core.errors import Mismatch
from workbench.core.inference import inference_mode
from workbench.core.masks import MaskSet
from workbench.models.calibrate import Walk
from workbench.models.model import Model
from workbench.models.units import layers_of
from workbench.training.masked_updates import PerpSettings, updated
from workbench.training.perp import (
    BlockError,
    Recovery,
    changed_since,
    check_rows,
    put_back,
    zeros_of,
)

RATE = 1e-3
Listener = Callable[[int, int, float], None]


def reconstruct(
    model: Model,
    dense: Model,
    masks: MaskSet,
    rows: Int[torch.Tensor, "b t"],
    settings: PerpSettings | None = None,
    *,
    listener: Listener = lambda step, steps, loss: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Recovery:
    """Repair a network that the masks are applied to; it keeps what it learnt.

    Args:
        dense: the same network before it was pruned.
        masks: of the network, already applied.
        rows: text as tokens.
        settings: ``steps`` are those of each block; ``batch_rows`` is not used.
        listener: hears step, steps of all blocks, and squared error after each step.
        stopped: asked after each step; true ends it and keeps what is there.

    Raises:
        BadInput: too little text.
        Mismatch: a dense model of another depth.
    """
    settings = settings or PerpSettings(steps=50)
    check_rows(rows)
    originals, blocks = layers_of(dense), layers_of(model)
    if len(originals) != len(blocks):
        raise Mismatch(
            f"dense={dense.name!r} has {len(originals)} layers and the pruned model"
            f" {len(blocks)}; pass the model that was pruned"
        )
    before = {name: value.detach().clone() for name, value in model.network.named_parameters()}
    found = Recovery(zeros_before=zeros_of(model, masks))
    with inference_mode(False):
        walk = Walk(model, rows.clone())
        for index in range(len(blocks)):
            wanted = walk.output(index, originals[index])
            _repair(walk, index, wanted, masks, settings, found, listener, stopped)
            if found.note:
                break
            walk.hidden = walk.output(index)
    found.zeros_after = zeros_of(model, masks)
    found.tensors = changed_since(before, model.network)
    return found


def _repair(
    walk: Walk,
    index: int,
    wanted: list[torch.Tensor],
    masks: MaskSet,
    settings: PerpSettings,
    found: Recovery,
    listener: Listener,
    stopped: Callable[[], bool],
) -> None:
    """Fit one block."""
    model, block = walk.model, walk.layers[index]
    old = {name: value.detach().clone() for name, value in block.named_parameters()}
    error = _error(walk, index, wanted)
    steps, all_steps = settings.steps, settings.steps * len(walk.layers)
    with torch.enable_grad(), updated(model, masks, settings, index) as chosen:
        found.trainable += sum(number.numel() for number in chosen)
        optimiser = torch.optim.AdamW(chosen, settings.learning_rate or RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _linear(steps))
        for step in range(steps):
            batch = step % len(wanted)
            loss = F.mse_loss(walk.called(index, batch).float(), wanted[batch].float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            found.curve.append((index * steps + step + 1, float(loss.detach())))
            listener(index * steps + step + 1, all_steps, found.curve[-1][1])
            if stopped():
                found.note = f"Stopped at block {index} of {len(walk.layers)}."
                break
    now = _error(walk, index, wanted)
    if not now < error:
        put_back(block, old)
        now = error
    found.blocks.append(BlockError(index, error, now))


def _linear(steps: int) -> Callable[[int], float]:
    """A tenth of warm-up, then down to zero."""
    warm = max(1, steps // 10)
    return lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))


@torch.no_grad()
def _error(walk: Walk, index: int, wanted: list[torch.Tensor]) -> float:
    """Mean squared error of the block's output over all rows."""
    pairs = zip(walk.output(index), wanted, strict=True)
    total = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return total / sum(one.numel() for one in wanted)
