"""Every registered verifier, and every setting of its knobs, through the verifier suite."""

from __future__ import annotations

import pytest

from workbench.core.method import methods
from workbench.testing.variants import name_of, variants
from workbench.testing.verifier_suite import SAMPLINGS, VerifierSuite

ALL = [v for card in methods("verifier") for v in variants(card)]
LOSSLESS = [v for v in ALL if v.lossless]
SMALL_CHECKS = [
    VerifierSuite.check_padding_is_never_accepted,
    VerifierSuite.check_disjoint_supports_accept_nothing,
    VerifierSuite.check_verdict_is_a_law,
    VerifierSuite.check_impossible_tokens,
    VerifierSuite.check_near_equal_laws,
    VerifierSuite.check_used_up_support,
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("verifier", LOSSLESS, ids=name_of)
def test_output_law_is_the_targets(verifier, sampling):
    VerifierSuite(verifier).check_output_law(sampling)


@pytest.mark.parametrize("sampling", SAMPLINGS[:3], ids=str)
@pytest.mark.parametrize("verifier", ALL, ids=name_of)
def test_barred_nodes(verifier, sampling):
    VerifierSuite(verifier).check_barred_output_law(sampling)


@pytest.mark.parametrize("check", SMALL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("verifier", ALL, ids=name_of)
def test_limits(verifier, check):
    check(VerifierSuite(verifier))


@pytest.mark.parametrize("verifier", LOSSLESS, ids=name_of)
def test_equal_laws_accept_everything(verifier):
    VerifierSuite(verifier).check_equal_laws_accept_everything()


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("verifier", LOSSLESS, ids=name_of)
def test_bonus_after_full_acceptance(verifier, sampling):
    VerifierSuite(verifier).check_bonus_after_full_acceptance(sampling)


def test_the_registry_holds_lossless_verifiers_for_chains_and_trees():
    assert any(v.chains_only for v in LOSSLESS) and any(not v.chains_only for v in LOSSLESS)
