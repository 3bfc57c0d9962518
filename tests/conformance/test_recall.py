"""Passes that are given again are those that would be computed."""

from __future__ import annotations

import pytest
import torch
from drafter_cases import ANY, DEFAULTS, suite_of

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.core.span import Span
from workbench.testing.drafter_runs import walks_the_target
from workbench.testing.recall import Recall
from workbench.testing.tiny_network import tiny_network
from workbench.testing.variants import name_of


@pytest.mark.parametrize("drafter", [d for d in DEFAULTS if walks_the_target(d)], ids=name_of)
def test_drafts_with_and_without_it_are_the_same(drafter, monkeypatch):
    recalled, computed = (
        [
            drive.propose(Budget(2, 4, 2), seed)
            for drive in suite_of(drafter).drives(Sampling(1.0), ANY)
            for seed in range(8)
        ]
        for _ in _with_and_without(monkeypatch)
    )
    for one, other in zip(recalled, computed, strict=True):
        assert torch.equal(one.tokens, other.tokens) and one.parent == other.parent
        assert one.probs is None or torch.equal(one.probs, other.probs)


def _with_and_without(monkeypatch):
    yield
    monkeypatch.setattr(Recall, "_answer", lambda self, run, *asked: run(*asked))
    yield


def test_a_pass_is_known_by_its_rows_its_past_and_its_weights():
    model, recall = tiny_network(5, layers=2), Recall()

    def logits(past, rows, parent=None, **how):
        session = model.session()
        session.sync(past)
        before = recall.passes
        given, new = session.forward(rows, parent, **how).logits, recall.passes - before
        session.commit([0, 1])
        again = session.forward([3]).logits  # reads the keys and values that were given
        return torch.cat((given, again)), new

    with recall.on():
        first, new = logits([1, 2, 3], [4, 0, 1])
        assert new == 1
        same, new = logits([1, 2, 3], [4, 0, 1])
        assert new == 0 and torch.equal(first, same)
        asked = [
            ([1, 2, 4], [4, 0, 1]),
            ([1, 2, 3], [4, 0, 2]),
            ([1, 2, 3], [4, 0, 1], (-1, 0, 0)),
        ]
        for other in asked:
            assert logits(*other)[1] == 1
        assert logits([1, 2, 3], [4, 0, 1], span=Span.first(1))[1] == 1
        with torch.no_grad():
            next(model.network.parameters()).add_(0.5)
        moved, new = logits([1, 2, 3], [4, 0, 1])
        assert new == 1 and not torch.equal(first, moved)
    plain, new = logits([1, 2, 3], [4, 0, 1])
    assert new == 0 and torch.equal(plain, moved)
