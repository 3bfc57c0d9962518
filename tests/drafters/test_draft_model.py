"""A path drafted in one call is the one drafted level by level, siblings included."""

from __future__ import annotations

import pytest
import torch

from workbench.core.decoding import Budget, Context, Need
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.models.native import build

PROMPT = [5, 9, 3, 7, 2, 11]


def proposed(model, sampling, siblings, budget):
    """A tree, and how often the policy was asked."""
    session = model.session()
    session.sync(PROMPT[:3])  # it has run a pass, so it knows what one takes
    rng = torch.Generator().manual_seed(4)
    provided = {Need.DRAFT: session}
    ctx = Context(PROMPT, sampling, rng, model.vocab_size, torch.device("cpu"), provided)
    drafter = make_method("drafter", "draft_model", siblings=siblings)
    tree, _ = drafter.propose(ctx, drafter.init(ctx), budget)
    return tree, torch.rand(1, generator=rng).item(), session.tokens


@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler: every level is torch's")
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8)], ids=["greedy", "hot"])
@pytest.mark.parametrize(
    ("siblings", "depth", "nodes", "width"),
    [(1, 4, 4, 1), (3, 4, 16, 8), (3, 4, 5, 8), (4, 2, 16, 2), (2, 1, 9, 9), (16, 3, 40, 40)],
)
def test_one_call_gives_the_tree_of_single_levels(loaded, sampling, siblings, depth, nodes, width):
    model, asked = loaded("llama"), []
    budget = dict(depth=depth, nodes=nodes, width=width)
    steady = Budget(**budget, go=lambda step: asked.append(step) or True, steady=True)
    ours, rng, kept = proposed(model, sampling, siblings, steady)
    assert not asked, "it asked somebody, so it went level by level"
    theirs, other_rng, other_kept = proposed(model, sampling, siblings, Budget(**budget))
    assert ours.parent == theirs.parent and len(ours) == min(nodes, depth * min(siblings, width))
    assert ours.tokens.tolist() == theirs.tokens.tolist()
    torch.testing.assert_close(ours.score, theirs.score, atol=1e-5, rtol=1e-4)
    assert (ours.probs is None) == (theirs.probs is None) == sampling.greedy
    if not sampling.greedy:
        torch.testing.assert_close(ours.probs, theirs.probs, atol=1e-6, rtol=1e-4)
    assert rng == other_rng, "another number of random draws"
    assert kept == other_kept, "another text is stored"


def test_a_policy_that_says_no_ends_the_path_there(loaded):
    budget = Budget(5, 15, 3, go=lambda step: step.depth < 2)
    tree, _, _ = proposed(loaded("llama"), Sampling(0.8), 3, budget)
    assert tree.parent == (-1, -1, -1, 0, 0, 0)
