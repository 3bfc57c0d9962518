"""Runs of every drafter have the target's law.

The default of each drafter meets every lossless verifier. Its other settings meet one verifier, in
a long run of half the length: what a setting may break is the budget and the declared law, and
those are checked for each; that an honest law stays exact under every verifier is the verifier
suite's own proof.
"""

from __future__ import annotations

from drafter_cases import DEFAULTS, SAMPLED, pairs, suite_of, unless_refused

from workbench.core.sampling import Sampling
from workbench.testing import oracles
from workbench.testing.drafter_runs import PROMPT


@pairs
def test_first_tokens_have_the_targets_law(drafter, verifier):
    for sampling in (Sampling(0.0), *SAMPLED) if drafter in DEFAULTS else SAMPLED[2:]:
        check = suite_of(drafter).check_exact_output
        unless_refused(drafter, verifier, lambda s=sampling, c=check: c(s, verifier))


@pairs
def test_long_runs_have_the_targets_law(drafter, verifier):
    check, tokens = suite_of(drafter).check_long_run, 900 if drafter in DEFAULTS else 450
    unless_refused(drafter, verifier, lambda: check(SAMPLED[2], verifier, tokens))


@pairs
def test_greedy_text_is_the_targets(drafter, verifier):
    suite = suite_of(drafter)
    wanted = oracles.plain_greedy(suite.target.rule, PROMPT, 40)
    unless_refused(drafter, verifier, lambda: suite.check_greedy(verifier, wanted, PROMPT))


@pairs
def test_greedy_text_after_total_acceptance(drafter, verifier):
    suite = suite_of(drafter)
    unless_refused(drafter, verifier, lambda: suite.check_greedy_after_acceptance(verifier))
