"""ADED: the table, the nudges and the search, each against a computation by hand."""

import math

import numpy as np
import pytest
import torch

from workbench.core.decoding import Budget, Context, Need
from workbench.core.sampling import Sampling
from workbench.core.trigrams import PackedTrigrams, Trigrams
from workbench.drafters.aded import Aded, Leaf
from workbench.models.store import Store


def context(tokens, store):
    rng = torch.Generator().manual_seed(0)
    return Context(list(tokens), Sampling(), rng, 8, torch.device("cpu"), {Need.STORE: store})


def chain_store():
    """Every pair has one successor: 0 1 2 3 0 1 2 3 ..."""
    return Store.of([np.arange(40) % 4])


def test_the_table_holds_normalised_counts():
    tokens = np.array([0, 1, 2, 0, 1, 2, 0, 1, 3, -1, 1, 2])
    table = PackedTrigrams(tokens, top=5)
    assert table.row((0, 1)) == pytest.approx({2: 2 / 3, 3: 1 / 3})
    assert table.row((3, 1)) == {} and table.row((1, 3)) == {}, "no triple crosses a border"
    assert list(PackedTrigrams(tokens, top=1).row((0, 1))) == [2]


def test_a_single_continuation_gets_every_visit():
    drafter = Aded(simulations=150)
    ctx = context([2, 3, 0, 1], chain_store())
    tree, _ = drafter.propose(ctx, drafter.init(ctx), Budget(4, 20, 8))
    assert tree.tokens.tolist() == [2, 3, 0, 1] and tree.parent == (-1, 0, 1, 2)
    # The search is three levels deep; the fourth token is the appended heaviest successor.
    assert tree.score.tolist()[0] == 150
    assert ctx.reported["visits"][0] == 150


def test_a_looping_text_is_counted_exactly():
    drafter = Aded(window=16, step=0.04, cap=3.0)
    ctx = context([5, 6, 7] * 3, chain_store())
    state, bumps = drafter.init(ctx), 0
    for round_ in range(12):
        ctx.tokens = [5, 6, 7] * 3 + [5, 6, 7] * round_
        before = len(ctx.tokens[-16:]) - 2
        drafter.propose(ctx, state, Budget(2, 4, 2))
        bumps += sum(
            1
            for a, b, c in zip(*(ctx.tokens[-16:][i:] for i in range(3)), strict=False)
            if (a, b, c) == (5, 6, 7)
        )
        assert before > 0
    assert state.row((5, 6))[7] == pytest.approx(min(3.0, 0.04 * bumps))
    ctx.tokens = [*ctx.tokens, 5]
    for _ in range(400):
        ctx.tokens = [*ctx.tokens, 6, 7, 5]
        drafter.propose(ctx, state, Budget(2, 4, 2))
    assert state.row((5, 6))[7] == 3.0


def test_puct_by_hand():
    """Two dead-end successors of weight .9 and .1: each once, then by score."""
    drafter = Aded(c1=2.0, c2=8.0)
    table = PackedTrigrams(np.array([0, 1, 2] * 9 + [-1, 0, 1, 3]), top=5)
    weights = table.row((0, 1))
    assert weights == pytest.approx({2: 0.9, 3: 0.1})
    # nothing follows (1, 2) but 0: cut the table there, so that both are dead ends
    dead = PackedTrigrams(np.array([]), top=5)
    state = Trigrams(dead, touched={(0, 1): dict(weights)})
    root, visits, rewards = Leaf(1.0), {2: 0, 3: 0}, {2: 0.0, 3: 0.0}
    for count in range(12):
        drafter._simulate(state, root, (0, 1), 3)
        if count == 0:
            best = 2  # the first expansion follows the heaviest
        elif not all(visits.values()):
            best = min(t for t in visits if not visits[t])
        else:
            grown = 2.0 + math.log((count + 9.0) / 8.0)
            best = max(
                visits,
                key=lambda t: (
                    rewards[t] / visits[t] + grown * weights[t] * math.sqrt(count) / (1 + visits[t])
                ),
            )
        visits[best] += 1
        rewards[best] += 1.0 + weights[best]
        assert {t: leaf.visits for t, leaf in root.children.items()} == visits
    assert root.visits == 12


def test_more_exploration_spreads_the_visits():
    """The constant that weighs the prior changes how visits are shared out."""
    state = Trigrams(PackedTrigrams(np.array([]), 5), touched={(0, 1): {2: 0.9, 3: 0.1}})
    shares = []
    for c1 in (0.0, 32.0):
        root = Leaf(1.0)
        for _ in range(400):
            Aded(c1=c1)._simulate(state, root, (0, 1), 3)
        shares.append(root.children[2].visits / 400)
    assert shares[0] != pytest.approx(shares[1], abs=0.02)
    assert shares[1] == pytest.approx(0.9, abs=0.05), "with a large c1 visits follow the prior"


def test_a_stream_keeps_its_table():
    drafter = Aded()
    ctx = context([5, 6, 7, 5, 6], chain_store())
    state = drafter.init(ctx)
    drafter.propose(ctx, state, Budget(2, 4, 2))
    later = drafter.resume(context([1, 2], chain_store()), state)
    assert later.row((5, 6)) == state.row((5, 6)) and later.row((5, 6))
