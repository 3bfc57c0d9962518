"""Every length policy grants usable budgets, from a state that is a value."""

from functools import cache

import pytest
import torch

from workbench.core.decoding import Context, DraftStep, Need, Outcome
from workbench.core.method import methods
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree
from workbench.policies.heuristic import Heuristic
from workbench.testing.tiny_network import tiny_network
from workbench.testing.variants import name_of, variants

POLICIES = [p for card in methods("policy") for p in variants(card)]


@cache
def context() -> Context:
    """Everything that a policy may ask for, with tiny networks behind it."""
    target, draft = tiny_network(3, seed=1), tiny_network(3, layers=2, seed=2)
    provided = {Need.TARGET: target.session(), Need.DRAFT: draft.session()}
    rng, device = torch.Generator().manual_seed(0), torch.device("cpu")
    return Context([0, 1], Sampling(), rng, 3, device, provided)


def a_step(depth: int, seed: int = 0) -> DraftStep:
    generator = torch.Generator().manual_seed(seed + depth)
    logits = 3 * torch.randn(3, generator=generator, dtype=torch.double)
    hidden = torch.randn(16, generator=generator, dtype=torch.double)
    return DraftStep(depth, logits.softmax(-1), logits, logits.argmax(), hidden)


def chain(length: int) -> DraftTree:
    return DraftTree.chain(torch.zeros(length, dtype=torch.long))


def outcome(kept: int) -> Outcome:
    return Outcome(tuple(range(kept)), 1, (0,) * kept + (1,))


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_budgets_are_positive_and_follow_from_the_state(policy):
    state = policy.init(context())
    for step in range(40):
        budget = policy.budget(state)
        assert min(budget.depth, budget.nodes, budget.width) >= 1
        again = policy.budget(state)
        assert (again.depth, again.nodes, again.width) == (budget.depth, budget.nodes, budget.width)
        kept = budget.depth if step % 3 else 0
        state = policy.update(state, chain(budget.depth), outcome(kept))


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_an_answer_depends_on_the_steps_alone(policy):
    state = policy.init(context())
    for seed in range(6):
        steps = [a_step(depth, seed) for depth in range(1, 6)]
        answers = [policy.go(state, steps[:count]) for count in range(1, 6)]
        assert all(isinstance(answer, bool) for answer in answers)
        assert answers == [policy.go(state, steps[:count]) for count in range(1, 6)]


STEADY = [policy for policy in POLICIES if getattr(policy, "steady", False)]


@pytest.mark.parametrize("policy", STEADY, ids=name_of)
def test_a_steady_policy_never_says_no(policy):
    state = policy.init(context())
    for seed in range(20):
        steps = [a_step(depth, seed) for depth in range(1, 9)]
        assert all(policy.go(state, steps[:count]) for count in range(1, 9))


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_drafters_that_show_nothing_are_not_stopped_for_it(policy):
    if getattr(policy, "wants_hidden", False):
        pytest.skip("it refuses such drafters, see its own test")
    state = policy.init(context())
    assert policy.go(state, [DraftStep(1)])


def test_heuristic_by_hand():
    policy = Heuristic(start=3, most=8)
    state, depths = policy.init(context()), []
    for kept_all in (True, True, True, False, False, True):
        depth = policy.budget(state).depth
        depths.append(depth)
        state = policy.update(state, chain(depth), outcome(depth if kept_all else depth - 1))
    assert depths == [3, 5, 7, 8, 7, 6]
    assert policy.budget(state).depth == 8
    for _ in range(20):
        state = policy.update(state, chain(policy.budget(state).depth), outcome(0))
    assert policy.budget(state).depth == 1


def test_heuristic_learns_nothing_from_an_empty_round():
    assert Heuristic().update(4, chain(0), outcome(0)) == 4
