"""The suites bite: each planted mistake fails the very check that guards against it.

The two mistakes of a session (a causal mask over the tree, positions by row instead of depth) are
planted in the tests of the model families, for every family.
"""

import pytest

from workbench.core.sampling import Sampling
from workbench.drafters.draft_model import DraftModel
from workbench.testing import saboteurs
from workbench.testing.drafter_suite import DrafterSuite
from workbench.testing.verifier_suite import VerifierSuite
from workbench.verifiers.multi_round import MultiRound

WARM = Sampling(1.0)


@pytest.mark.parametrize("verifier", saboteurs.WRONG_VERIFIERS, ids=lambda verifier: verifier.name)
def test_a_wrong_verifier_fails_the_enumeration(verifier):
    with pytest.raises(AssertionError):
        VerifierSuite(verifier).check_output_law(WARM)


def test_the_honest_verifier_passes_the_same_check():
    VerifierSuite(MultiRound()).check_output_law(WARM)


@pytest.mark.parametrize("liar", [saboteurs.LiesAboutProbs, saboteurs.KeepsUnfilteredProbs])
def test_a_drafter_that_lies_about_its_law_is_caught(liar):
    with pytest.raises(AssertionError):
        DrafterSuite(liar()).check_declared_law(WARM, MultiRound())


def test_the_honest_drafter_passes_the_same_check():
    DrafterSuite(DraftModel()).check_declared_law(WARM, MultiRound())


def test_a_drafter_that_exceeds_its_budget_is_caught():
    with pytest.raises(AssertionError):
        DrafterSuite(saboteurs.ExceedsItsBudget()).check_budget(MultiRound())


def test_the_honest_drafter_stays_within_its_budget():
    DrafterSuite(DraftModel()).check_budget(MultiRound())
