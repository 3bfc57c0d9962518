"""Block by block: every error falls, inputs are refreshed, zeros and the rest stay."""

from __future__ import annotations

import pytest
import torch

from workbench.core.errors import BadInput, Mismatch
from workbench.core.masks import Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Plan
from workbench.models.calibrate import Walk
from workbench.models.prune import Pruned, prune
from workbench.models.units import matrices
from workbench.testing.tiny_network import tiny_network
from workbench.training.masked_updates import PerpSettings, norms_of
from workbench.training.reconstruction import reconstruct

ROWS = torch.randint(0, 13, (16, 32), generator=torch.Generator().manual_seed(2))
SETTINGS = PerpSettings(rank=4, steps=30, learning_rate=5e-3)


def pruned_pair(ratio: float = 0.6):
    model = tiny_network(13, layers=3)
    dense = model.clone()
    made = prune(model, make_method("pruner", "magnitude"), Plan(Pattern("layer"), ratio))
    made.apply(model)
    return model, dense, made.masks


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.network(input_ids=ROWS, use_cache=False).logits


def inputs(model) -> list[list[torch.Tensor]]:
    """What each block is called with, in the network as it is."""
    walk, found = Walk(model, ROWS), []
    for index in range(len(walk.layers)):
        found.append(walk.hidden)
        walk.hidden = walk.output(index)
    return found


def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return sum(float((x - y).square().sum()) for x, y in zip(a, b, strict=True))


def test_errors_fall_block_by_block_and_in_what_the_next_one_hears():
    model, dense, masks = pruned_pair()
    whole, before, first = inputs(dense), inputs(model), logits(model)
    done = reconstruct(model, dense, masks, ROWS, SETTINGS)
    assert [one.layer for one in done.blocks] == [0, 1, 2]
    assert all(one.after < 0.8 * one.before for one in done.blocks)
    after = inputs(model)
    for index in (1, 2):
        assert distance(after[index], whole[index]) < distance(before[index], whole[index])
    wanted = logits(dense)
    assert (logits(model) - wanted).square().mean() < (first - wanted).square().mean()
    assert done.zeros_after == done.zeros_before > 0
    for name, mask in masks.weights.items():
        assert bool((matrices(model)[name].weight[~mask] == 0).all()), name
    now, fresh = logits(model), pruned_pair()[0]
    Pruned(masks, done.weights(fresh)).apply(fresh)
    assert torch.equal(logits(fresh), now)


def test_each_block_hears_the_repaired_ones():
    """The errors are those of a walk through the repaired network, not through the pruned one."""
    model, dense, masks = pruned_pair()
    done = reconstruct(model, dense, masks, ROWS, SETTINGS)
    walk, size = Walk(model, ROWS), ROWS.numel() * 16
    for one, block in zip(done.blocks, dense.anatomy.layers, strict=True):
        wanted = walk.output(one.layer, block)
        found = walk.output(one.layer)
        assert distance(found, wanted) / size == pytest.approx(one.after, rel=1e-4)
        walk.hidden = found


def test_only_what_was_chosen_moves_and_a_block_that_gets_worse_is_left():
    model, dense, masks = pruned_pair()
    before = {n: p.detach().clone() for n, p in model.network.named_parameters()}
    done = reconstruct(model, dense, masks, ROWS, PerpSettings(variant="none", steps=5))
    last = "model.norm.weight"  # belongs to no block
    assert done.tensors.keys() == norms_of(model.network).keys() - {last}
    assert done.trainable == 3 * 2 * 16
    model, dense, masks = pruned_pair()
    wild = PerpSettings(variant="none", steps=2, learning_rate=1e4)
    done = reconstruct(model, dense, masks, ROWS, wild)
    assert not done.tensors and all(one.after == one.before for one in done.blocks)
    for name, value in model.network.named_parameters():
        assert torch.equal(value, before[name]) and not value.requires_grad


def test_stopping_keeps_the_blocks_that_are_done():
    model, dense, masks = pruned_pair()
    heard: list[tuple[int, int]] = []
    done = reconstruct(
        model,
        dense,
        masks,
        ROWS,
        SETTINGS,
        listener=lambda step, steps, loss: heard.append((step, steps)),
        stopped=lambda: len(heard) >= 31,
    )
    assert heard[-1] == (31, 90) and "Stopped at block 1 of 3" in done.note
    assert [one.layer for one in done.blocks] == [0, 1]
    assert not any(".layers.2." in name for name in done.tensors)
    with pytest.raises(BadInput, match="training text"):
        reconstruct(model, dense, masks, ROWS[:, :4])
    with pytest.raises(Mismatch, match="has 2 layers"):
        reconstruct(model, tiny_network(13, layers=2), masks, ROWS)
