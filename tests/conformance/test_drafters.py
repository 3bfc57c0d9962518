"""Every registered drafter, and every setting of its knobs: budgets, declared laws, leftovers."""

from __future__ import annotations

import pytest
from drafter_cases import ANY, DEFAULTS, SAMPLED, SETTINGS, every_drafter, suite_of

from workbench.core.decoding import Need
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.testing.drafter_runs import walks_the_target
from workbench.testing.drafter_suite import BUDGETS
from workbench.testing.toy_models import ToyModel
from workbench.testing.variants import name_of


@every_drafter
def test_budget_is_never_exceeded(drafter):
    suite_of(drafter).check_budget(ANY, BUDGETS if drafter in DEFAULTS else BUDGETS[3::11])


@every_drafter
def test_the_policy_may_stop_drafting(drafter):
    suite_of(drafter).check_go(ANY)


@pytest.mark.parametrize("sampling", SAMPLED, ids=str)
@pytest.mark.parametrize("drafter", DEFAULTS, ids=name_of)
def test_declared_probs_are_the_real_law(drafter, sampling):
    suite_of(drafter).check_declared_law(sampling, ANY)


@pytest.mark.parametrize("drafter", SETTINGS, ids=name_of)
def test_declared_probs_of_every_setting(drafter):
    suite_of(drafter).check_declared_law(SAMPLED[2], ANY, draws=300)


@pytest.mark.parametrize("extra", [1, 3])
@pytest.mark.parametrize("padded", ["draft", "target"])
@pytest.mark.parametrize("drafter", [d for d in DEFAULTS if Need.DRAFT in d.needs], ids=name_of)
def test_padded_vocabularies_keep_the_law(drafter, padded, extra):
    if walks_the_target(drafter):
        pytest.skip("a network has no padded twin here; its target pads are tested with models")
    target, draft = ToyModel.random(3, seed=1, scale=0.7), ToyModel.random(3, seed=2, scale=0.7)
    if padded == "draft":
        suite = suite_of(drafter, target=target, draft=draft.padded(3 + extra))
    else:
        suite = suite_of(drafter, target=target.padded(3 + extra), draft=draft)
    suite.check_exact_output(Sampling(1.0), ANY)
    suite.check_budget(ANY, BUDGETS[3::11])


@every_drafter
def test_one_seed_one_run(drafter):
    suite_of(drafter).check_deterministic(ANY)


@every_drafter
def test_a_run_leaves_nothing_behind(drafter):
    suite_of(drafter).check_reset(ANY)


def test_plain_decoding_is_among_the_drafters():
    assert make_method("drafter", "none") in DEFAULTS
