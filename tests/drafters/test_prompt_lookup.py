"""The indexed search equals the slow one on random texts, as they grow."""

import numpy as np
import pytest

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.drafters.prompt_lookup import PromptLookup
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive
from workbench.testing.toy_models import ToyModel


@pytest.mark.parametrize("prefer", ["latest", "earliest"])
@pytest.mark.parametrize(("longest", "shortest"), [(3, 1), (2, 2), (1, 1), (4, 2)])
def test_it_copies_what_the_slow_search_finds(prefer, longest, shortest):
    rng = np.random.default_rng(longest * 10 + shortest)
    found = 0
    for _ in range(20):
        text = rng.integers(4, size=int(rng.integers(2, 40))).tolist()
        drafter = PromptLookup(max_ngram=longest, min_ngram=shortest, prefer=prefer)
        drive = Drive(drafter, ToyModel.random(4), None, Sampling(), text[:2])
        for end in range(2, len(text) + 1):
            drive.ctx.tokens = text[:end]
            tree, drive.state = drafter.propose(drive.ctx, drive.state, Budget(5, 5, 1))
            wanted = oracles.slow_lookup(text[:end], longest, shortest, prefer, 5)
            assert tree.tokens.tolist() == wanted
            found += bool(wanted)
    assert found > 50
