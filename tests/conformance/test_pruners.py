"""Every registered pruner, and every setting of its knobs, through the suite; and its saboteurs."""

from __future__ import annotations

import pytest

from workbench.core.method import make_method, methods
from workbench.models.anatomy import anatomy_of
from workbench.models.model import Model
from workbench.testing.checkpoints import tiny_network
from workbench.testing.pruner_saboteurs import CAUGHT_BY, ForgettingSuite
from workbench.testing.pruner_suite import PrunerSuite
from workbench.testing.variants import name_of, variants

EVERY = [pruner for card in methods("pruner") for pruner in variants(card)]
CHECKS = [
    PrunerSuite.check_density,
    PrunerSuite.check_zeros_are_the_mask,
    PrunerSuite.check_ratio_zero,
    PrunerSuite.check_undo,
    PrunerSuite.check_deterministic,
    PrunerSuite.check_own_ratios,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("pruner", EVERY, ids=name_of)
def test_pruner(pruner, check):
    check(PrunerSuite(pruner))


ELSEWHERE = [
    (name, family) for name in ("wanda", "layers") for family in ("gpt2", "phi3", "gemma2")
]
ELSEWHERE += [("magnitude", "opt"), ("wanda", "mixtral"), ("sparsegpt", "qwen3_moe")]


@pytest.mark.parametrize("name, family", ELSEWHERE)
def test_pruner_on_other_families(name, family):
    network = tiny_network(family, num_hidden_layers=3).requires_grad_(False)
    suite = PrunerSuite(
        make_method("pruner", name), Model(family, network, None, anatomy_of(network))
    )
    suite.rows = suite.rows[:1]
    suite.check_ratio_zero()
    suite.check_undo()


@pytest.mark.parametrize("wrong, check", CAUGHT_BY, ids=lambda one: one.__name__)
def test_a_wrong_pruner_is_caught(wrong, check):
    with pytest.raises(AssertionError):
        check(PrunerSuite(wrong()))


def test_an_undo_that_computes_is_caught():
    with pytest.raises(AssertionError, match="undo left"):
        ForgettingSuite(make_method("pruner", "magnitude")).check_undo()
