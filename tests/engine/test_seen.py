"""The numbers of a round: read all at once from a device, or each by itself, they are the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from workbench.core.sampling import Sampling
from workbench.core.transfer import brought
from workbench.core.tree import DraftTree
from workbench.engine.seen import seen_at_once, seen_of
from workbench.models.native.laws import entropies

V = 12
PARENT = (-1, -1, 0, 2)


def tree(drawn: bool, parent=PARENT) -> DraftTree:
    law = torch.rand(len(parent), V, generator=torch.Generator().manual_seed(3)).softmax(-1)
    tokens = torch.arange(len(parent)) % V
    return DraftTree(tokens, parent, law if drawn else None, law[:, 0] if drawn else None)


def logits(rows: int) -> torch.Tensor:
    return 4 * torch.rand(rows, V, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("parent", [PARENT, (-1,), ()])
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8), Sampling(0.8, top_k=2)])
def test_at_once_is_what_each_by_itself_says(sampling, drawn, parent):
    rows = logits(len(parent) + 1)
    p = sampling.law(rows)
    wanted = seen_of(tree(drawn, parent), p, entropies(p), 3)
    highest, found = seen_at_once(sampling, rows, tree(drawn, parent), 3)
    assert highest == float(rows.max()) and torch.equal(found.p, p)
    for name in ("p_bits", "p_node", "q_node", "q_bits", "score"):
        one, other = getattr(wanted, name), getattr(found, name)
        assert (one is None) == (other is None), name
        assert one is None or one == pytest.approx(other, abs=1e-6), name
    for name in ("p_top", "q_top"):
        one, other = getattr(wanted, name), getattr(found, name)
        assert [top.ids for top in one] == [top.ids for top in other], name
        probs = [[chance for top in tops for chance in top.probs] for tops in (one, other)]
        assert probs[0] == pytest.approx(probs[1], abs=1e-6)


def test_the_tree_knows_its_tokens_afterwards():
    made = tree(True)
    made.tokens.tolist = None  # whoever asks the tensor again fails
    seen_at_once(Sampling(), logits(5), made, 3)
    assert made.token_ids == (0, 1, 2, 3)


@pytest.mark.parametrize("count", [0, V, 100])
def test_as_many_of_the_likeliest_as_there_are(count):
    rows = logits(5)
    _, found = seen_at_once(Sampling(1.0), rows, tree(True), count)
    assert found.p_top == seen_of(tree(True), Sampling(1.0).law(rows), [], count).p_top
    assert len(found.p_top) == (5 if count else 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_none_shows_in_the_highest(bad):
    rows = logits(5)
    rows[2, 7] = bad
    highest, _ = seen_at_once(Sampling(0.8), rows, tree(True), 3)
    assert not math.isfinite(highest)


def test_what_is_brought_keeps_numbers_and_shapes():
    parts = [
        torch.tensor(1.5),
        torch.tensor([[2**40 + 1, 3]]),
        torch.empty(0, 4),
        torch.tensor([0.1, math.nan]),
    ]
    found = brought(*parts)
    assert [part.shape for part in found] == [(), (1, 2), (0, 4), (2,)]
    assert int(found[1][0, 0]) == 2**40 + 1
    assert np.float32(found[3][0]) == np.float32(0.1) and math.isnan(found[3][1])
