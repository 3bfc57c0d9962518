"""The best draft tree, against every tree there is."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.best_tree import (
    best_for_cost,
    best_tree,
    expected_emitted,
    rank_acceptance,
)
from workbench.core.errors import BadInput
from workbench.core.template import grown_template
from workbench.core.trace import Forwards, Limits, Ms, Round

CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=3).map(
    lambda a: [x / max(1.0, sum(a)) for x in a]
)


def depth_of(parent) -> int:
    levels = [0]
    for above in parent:
        levels.append(levels[above + 1] + 1)
    return max(levels)


def every_tree(nodes: int, depth: int):
    """All trees with at most so many nodes and levels (children in order of appearance)."""
    for count in range(nodes + 1):
        for parent in product(*[range(-1, node) for node in range(count)]):
            if depth_of(parent) <= depth:
                yield parent


@given(CHANCES, st.integers(0, 5), st.integers(0, 4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_tree_at_all_is_better(acceptance, nodes, depth):
    tree = best_tree(acceptance, nodes, depth)
    best = max(expected_emitted(parent, acceptance) for parent in every_tree(nodes, depth))
    assert tree.emitted == pytest.approx(best, abs=1e-12)
    assert expected_emitted(tree.parent, acceptance) == pytest.approx(tree.emitted, abs=1e-12)
    assert len(tree.parent) <= nodes and tree.depth <= depth


@given(CHANCES, st.integers(0, 24), st.integers(1, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_where_chances_fall_it_is_the_tree_grown_best_first(acceptance, nodes, depth):
    falling = tuple(sorted(acceptance, reverse=True))
    grown = grown_template((falling,) * depth, nodes, depth, len(falling))
    parent = [above for above, _ in grown]
    best = best_tree(falling, nodes, depth).emitted
    assert expected_emitted(parent, falling) == pytest.approx(best, abs=1e-12)


def test_one_rank_gives_a_chain_and_certainty_fills_it():
    assert best_tree([1.0], 5, 5).parent == (-1, 0, 1, 2, 3)
    assert best_tree([1.0], 5, 5).emitted == 6
    assert best_tree([1.0], 5, 2).parent == (-1, 0)


def test_a_worthless_rank_is_not_used():
    assert best_tree([0.5, 0.0], 3, 1).parent == (-1,)


def test_larger_trees_emit_more_and_each_node_less():
    emitted = [best_tree([0.6, 0.2, 0.1], n, 8).emitted for n in range(0, 65, 8)]
    gains = [b - a for a, b in pairwise(emitted)]
    assert all(b <= a + 1e-12 for a, b in pairwise(gains))
    assert gains[-1] > 0


def test_cost_decides_the_size():
    cheap = best_for_cost([0.7, 0.2], lambda n, d: 10 + 0.01 * n, (0, 1, 4, 16, 64), (4, 8))
    dear = best_for_cost([0.7, 0.2], lambda n, d: 10 + 10 * n, (0, 1, 4, 16, 64), (4, 8))
    assert len(cheap.parent) > 16
    assert dear.parent == () and dear.emitted == 1
    assert cheap.tokens_per_s == pytest.approx(1e3 * cheap.emitted / cheap.round_ms)


def test_acceptance_by_rank_weighs_each_node_by_its_parents_chance():
    r = Round(
        index=0,
        start=1,
        root=0,
        tokens=[1, 2, 3],
        parent=[-1, -1, 0],
        drawn="chosen",
        accept=[0.5, 0.25, 0.8],
        stop=[0.25, 0.1, 0.25, 0.4],
        uniform=0.0,
        path=[],
        bonus=9,
        emitted=[9],
        budget=Limits(2, 3, 2),
        ms=Ms(0, 0, 0, 0),
        forwards=Forwards(1, 0),
        p_node=[0.5, 0.25, 0.8],
    )
    # Rank 0: node 0 below the root (surely reached), node 2 below node 0 (reached half the time).
    first = (1 * 0.5 + 0.5 * 0.8) / 1.5
    assert rank_acceptance([r], 3) == pytest.approx([first, 0.25, 0.0])


@pytest.mark.parametrize(
    "acceptance, nodes, depth",
    [([], 3, 2), ([1.2], 3, 2), ([-0.1], 3, 2), ([0.5], 999, 2), ([0.5], -1, 2), ([0.5], 3, -1)],
)
def test_what_no_tree_fits(acceptance, nodes, depth):
    with pytest.raises(BadInput):
        best_tree(acceptance, nodes, depth)
