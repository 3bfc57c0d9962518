"""Every length policy grants usable budgets, from a state that is a value."""

import pytest
import torch

from workbench.core.decoding import DraftStep, Outcome
from workbench.core.method import methods
from workbench.core.tree import DraftTree
from workbench.policies.heuristic import Heuristic
from workbench.testing.variants import name_of, variants

POLICIES = [p for card in methods("policy") for p in variants(card)]


def chain(length: int) -> DraftTree:
    return DraftTree.chain(torch.zeros(length, dtype=torch.long))


def outcome(kept: int) -> Outcome:
    return Outcome(tuple(range(kept)), 1, (0,) * kept + (1,))


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_budgets_are_positive_and_follow_from_the_state(policy):
    state = policy.init(None)
    for step in range(40):
        budget = policy.budget(state)
        assert min(budget.depth, budget.nodes, budget.width) >= 1
        again = policy.budget(state)
        assert (again.depth, again.nodes, again.width) == (budget.depth, budget.nodes, budget.width)
        assert isinstance(policy.go(state, [DraftStep(1)]), bool)
        kept = budget.depth if step % 3 else 0
        state = policy.update(state, chain(budget.depth), outcome(kept))


def test_heuristic_by_hand():
    policy = Heuristic(start=3, most=8)
    state, depths = policy.init(None), []
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
