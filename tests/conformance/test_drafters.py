"""Every registered drafter, and every setting of its knobs, through the drafter suite.

The default of each drafter meets every lossless verifier. Its other settings meet one verifier:
what a setting may break is the budget and the declared law, and those are checked for each; that an
honest law stays exact under every verifier is the verifier suite's own proof.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from workbench.core.decoding import Need
from workbench.core.errors import Mismatch
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.testing import oracles
from workbench.testing.drafter_suite import BUDGETS, PROMPT, DrafterSuite, walks_the_target
from workbench.testing.tiny_network import tiny_network
from workbench.testing.toy_models import ToyModel
from workbench.testing.variants import name_of, variants

EVERY = [variants(card) for card in methods("drafter")]
DEFAULTS = [made[0] for made in EVERY]
SETTINGS = [d for made in EVERY for d in made[1:]]
VERIFIERS = [v for card in methods("verifier") for v in variants(card) if v.lossless]
ANY = make_method("verifier", "multi_round")
# The pairs that a run is tried with: defaults with all, settings with one.
PAIRS = [(d, v) for d in DEFAULTS for v in VERIFIERS] + [(d, ANY) for d in SETTINGS]
SAMPLED = [Sampling(1.0), Sampling(0.7, top_k=2), Sampling(0.8, top_p=0.7)]
every_drafter = pytest.mark.parametrize("drafter", DEFAULTS + SETTINGS, ids=name_of)
pairs = pytest.mark.parametrize(
    ("drafter", "verifier"), PAIRS, ids=[f"{name_of(d)}-{name_of(v)}" for d, v in PAIRS]
)


@cache
def network():
    return tiny_network(3)


def suite_of(drafter, **models) -> DrafterSuite:
    if walks_the_target(drafter) and "target" not in models:
        models["target"] = network()
    return DrafterSuite(drafter, **models)


def unless_refused(drafter, verifier, check: Callable[[], None]) -> None:
    """Run a check; a pair that does not fit must say so, and what to choose instead."""
    try:
        check()
    except Mismatch as refusal:
        assert verifier is not ANY, f"{drafter.name} does not even work with {ANY.name}"
        assert "choose" in str(refusal), refusal


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


@pairs
def test_first_tokens_have_the_targets_law(drafter, verifier):
    for sampling in (Sampling(0.0), *SAMPLED) if drafter in DEFAULTS else SAMPLED[2:]:
        check = suite_of(drafter).check_exact_output
        unless_refused(drafter, verifier, lambda s=sampling, c=check: c(s, verifier))


@pairs
def test_long_runs_have_the_targets_law(drafter, verifier):
    check = suite_of(drafter).check_long_run
    unless_refused(drafter, verifier, lambda: check(SAMPLED[2], verifier))


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


@pairs
def test_greedy_text_is_the_targets(drafter, verifier):
    suite = suite_of(drafter)
    wanted = oracles.plain_greedy(suite.target.rule, PROMPT, 40)
    unless_refused(drafter, verifier, lambda: suite.check_greedy(verifier, wanted, PROMPT))


@pairs
def test_greedy_text_after_total_acceptance(drafter, verifier):
    suite = suite_of(drafter)
    unless_refused(drafter, verifier, lambda: suite.check_greedy_after_acceptance(verifier))


@every_drafter
def test_one_seed_one_run(drafter):
    suite_of(drafter).check_deterministic(ANY)


@every_drafter
def test_a_run_leaves_nothing_behind(drafter):
    suite_of(drafter).check_reset(ANY)


def test_plain_decoding_is_among_the_drafters():
    assert make_method("drafter", "none") in DEFAULTS
