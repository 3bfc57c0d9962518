"""SparseGPT against a solver that knows no trick; idle inputs; its blocks of columns."""

from __future__ import annotations

import pytest
import torch
from oracle_surgeon import hessian_of, surgeon

from workbench.core.masks import Pattern
from workbench.core.method import make_method
from workbench.core.pruning import Stats, Unit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double)


def correlated(tokens: int, wide: int) -> torch.Tensor:
    loud = torch.linspace(0.3, 3, wide).double()
    return (noise(tokens, 5, seed=1) @ noise(5, wide, seed=2) + noise(tokens, wide, seed=3)) * loud


def unit_of(weight: torch.Tensor) -> Unit:
    return Unit("w", "weights", 0, {"weight": weight}, tuple(weight.shape))


def heard(x: torch.Tensor) -> Stats:
    return Stats(len(x), x.square().sum(0), x.T @ x)


def least(scores: torch.Tensor, count: int) -> torch.Tensor:
    """True at the lowest of each row."""
    gone = torch.zeros(scores.shape, dtype=torch.bool)
    return gone.scatter(-1, scores.argsort(-1)[..., :count], True)


def by_row(scores: torch.Tensor, first: int, last: int) -> torch.Tensor:
    return least(scores, (last - first) // 2)


def by_block(scores: torch.Tensor, first: int, last: int) -> torch.Tensor:
    return least(scores.flatten()[None], scores.numel() // 2).view(scores.shape)


@pytest.mark.parametrize(
    "pattern, step, choose",
    [("row", 8, by_row), ("layer", 8, by_block), ("2:4", 4, by_row), ("4:8", 8, by_row)],
)
def test_masks_and_weights_are_the_solvers(pattern, step, choose):
    """At its defaults; a group of N:M is chosen from weights corrected up to its first column."""
    weight, x = noise(6, 24), correlated(200, 24)
    pruner = make_method("pruner", "sparsegpt", columns=24 if ":" in pattern else 8)
    mask, new = pruner.prune(unit_of(weight), heard(x), Pattern.parse(pattern), 0.5)
    kept, wanted = surgeon(weight, hessian_of(x), step, choose)
    assert torch.equal(mask, kept)
    torch.testing.assert_close(new, wanted, atol=1e-9, rtol=0)
    plain, _ = surgeon(weight, torch.eye(24).double(), step, choose)
    assert not torch.equal(mask, plain), "correlations must matter here, or this shows nothing"


def test_a_choice_from_dense_scores_is_only_corrected():
    weight, x = noise(6, 24), correlated(200, 24)
    pruner, mask = make_method("pruner", "sparsegpt", columns=8), noise(6, 24, seed=9) > 0
    found = pruner.prune(unit_of(weight), heard(x), Pattern("global"), 0.5, mask)
    _, wanted = surgeon(weight, hessian_of(x), 24, lambda scores, first, last: ~mask)
    torch.testing.assert_close(found[1], wanted, atol=1e-9, rtol=0)
    inverse = torch.linalg.inv(hessian_of(x)[3:, 3:])[0, 0]
    scores = pruner.score(unit_of(weight), heard(x))[:, 3]
    torch.testing.assert_close(scores.double(), weight[:, 3].square() / inverse, rtol=1e-5, atol=0)


def test_half_of_every_128_columns_goes():
    """Its default block: with one block for all, the loud half of the columns would lose less."""
    weight, x = noise(4, 256), noise(300, 256, seed=1)
    x[:, 128:] *= 100
    mask, _ = make_method("pruner", "sparsegpt").prune(
        unit_of(weight), heard(x), Pattern("layer"), 0.5
    )
    assert [int((~half).sum()) for half in mask.split(128, 1)] == [256, 256]


@pytest.mark.parametrize("pattern", ["row", "layer", "2:4"])
def test_idle_inputs_lose_their_weights_first_and_disturb_nothing(pattern):
    """However quiet the others are, and small weights before large ones."""
    weight, x = noise(5, 16), 1e-3 * correlated(100, 16)
    idle = torch.arange(16) % 8 < 2  # 2 of 8, in the first half of their groups of four
    x[:, idle] = 0
    pruner, chosen = make_method("pruner", "sparsegpt", columns=16), Pattern.parse(pattern)
    mask, new = pruner.prune(unit_of(weight), heard(x), chosen, 0.5)
    assert not mask[:, idle].any() and int((~mask).sum()) == 40
    busy = ~idle
    scores = pruner.score(unit_of(weight), heard(x))
    assert scores[:, idle].max() < scores[:, busy].min()
    few, _ = pruner.prune(unit_of(weight), heard(x), Pattern("row"), 1 / 8)
    assert torch.equal(~few[:, idle], least(weight[:, idle].abs(), 2)) and few[:, busy].all()
    if pattern == "row":  # what is left is what it would be without them
        alone, wanted = pruner.prune(unit_of(weight[:, busy]), heard(x[:, busy]), chosen, 1 / 3)
        assert torch.equal(mask[:, busy], alone)
        torch.testing.assert_close(new[:, busy], wanted, atol=1e-9, rtol=0)
    silent, whole = pruner.prune(unit_of(weight), heard(0 * x), Pattern("row"), 0.5)
    assert torch.equal(~silent, least(weight.abs(), 8)) and torch.equal(whole, weight * silent)
