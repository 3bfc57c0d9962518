"""Every registered drafter, and every setting of its knobs, through the drafter suite."""

from __future__ import annotations

from functools import cache

import pytest

from workbench.core.decoding import Need
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.testing import oracles
from workbench.testing.drafter_suite import PROMPT, DrafterSuite, walks_the_target
from workbench.testing.tiny_network import tiny_network
from workbench.testing.toy_models import ToyModel
from workbench.testing.variants import name_of, variants

DRAFTERS = [d for card in methods("drafter") for d in variants(card)]
VERIFIERS = [v for card in methods("verifier") for v in variants(card) if v.lossless]
SAMPLED = [Sampling(1.0), Sampling(0.7, top_k=2), Sampling(0.8, top_p=0.7)]
drafters = pytest.mark.parametrize("drafter", DRAFTERS, ids=name_of)
verifiers = pytest.mark.parametrize("verifier", VERIFIERS, ids=name_of)
samplings = pytest.mark.parametrize("sampling", SAMPLED, ids=str)


@cache
def network():
    return tiny_network(3)


def suite_of(drafter, **models) -> DrafterSuite:
    if walks_the_target(drafter) and "target" not in models:
        models["target"] = network()
    return DrafterSuite(drafter, **models)


@pytest.fixture(scope="module")
def any_lossless():
    return next(v for v in VERIFIERS if not v.chains_only)


@drafters
def test_budget_is_never_exceeded(drafter, any_lossless):
    suite_of(drafter).check_budget(any_lossless)


@drafters
def test_the_policy_may_stop_drafting(drafter, any_lossless):
    suite_of(drafter).check_go(any_lossless)


@samplings
@drafters
def test_declared_probs_are_the_real_law(drafter, sampling, any_lossless):
    suite_of(drafter).check_declared_law(sampling, any_lossless)


@pytest.mark.parametrize("sampling", [Sampling(0.0), *SAMPLED], ids=str)
@verifiers
@drafters
def test_first_tokens_have_the_targets_law(drafter, verifier, sampling):
    suite_of(drafter).check_exact_output(sampling, verifier)


@samplings
@verifiers
@drafters
def test_long_runs_have_the_targets_law(drafter, verifier, sampling):
    suite_of(drafter).check_long_run(sampling, verifier)


@pytest.mark.parametrize("extra", [1, 3])
@pytest.mark.parametrize("padded", ["draft", "target"])
@verifiers
@pytest.mark.parametrize("drafter", [d for d in DRAFTERS if Need.DRAFT in d.needs], ids=name_of)
def test_padded_vocabularies_keep_the_law(drafter, verifier, padded, extra):
    target, draft = ToyModel.random(3, seed=1, scale=0.7), ToyModel.random(3, seed=2, scale=0.7)
    if padded == "draft":
        suite = suite_of(drafter, target=target, draft=draft.padded(3 + extra))
    else:
        suite = suite_of(drafter, target=target.padded(3 + extra), draft=draft)
    suite.check_exact_output(Sampling(1.0), verifier)
    suite.check_budget(verifier)


@verifiers
@drafters
def test_greedy_text_is_the_targets(drafter, verifier):
    suite = suite_of(drafter)
    wanted = oracles.plain_greedy(suite.target.rule, PROMPT, 40)
    suite.check_greedy(verifier, wanted, PROMPT)


@verifiers
@drafters
def test_greedy_text_after_total_acceptance(drafter, verifier):
    suite_of(drafter).check_greedy_after_acceptance(verifier)


@verifiers
@drafters
def test_one_seed_one_run(drafter, verifier):
    suite_of(drafter).check_deterministic(verifier)


@verifiers
@drafters
def test_a_run_leaves_nothing_behind(drafter, verifier):
    suite_of(drafter).check_reset(verifier)


def test_plain_decoding_is_among_the_drafters():
    assert make_method("drafter", "none") in DRAFTERS
