"""The drafters, verifiers and pairs that the drafter tests go through."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from workbench.core.errors import Mismatch
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.testing.drafter_runs import walks_the_target
from workbench.testing.drafter_suite import DrafterSuite
from workbench.testing.tiny_network import tiny_network
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


@cache
def usual_suite(drafter) -> DrafterSuite:
    """One for all tests of a drafter: what it drafts is found once and meets every rule."""
    return DrafterSuite(drafter, network() if walks_the_target(drafter) else None)


def suite_of(drafter, **models) -> DrafterSuite:
    if not models:
        return usual_suite(drafter)
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
