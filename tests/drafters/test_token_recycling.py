"""The checks of the method's card: the matrix is exact, and it can only change speed."""

import numpy as np
import pytest

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.drafters.token_recycling import TokenRecycling, template
from workbench.policies.fixed import Fixed
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive, emitted, run_rounds
from workbench.testing.toy_models import ToyModel
from workbench.verifiers.exact_match import ExactMatch

PROMPT = (1, 3, 2, 5)
PROMPTS = (PROMPT, (7,), (0, 11, 0, 11, 4, 4))


class RandomMatrix(TokenRecycling):
    """Starts from random successors: it may cost speed, never change the text."""

    def init(self, ctx):
        state = TokenRecycling.init(self, ctx)
        rng = np.random.default_rng(3)
        state.successors[:] = rng.integers(ctx.vocab_size, size=state.successors.shape)
        return state


@pytest.mark.parametrize("drafter", [TokenRecycling(seed="none"), TokenRecycling(), RandomMatrix()])
@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_cold_warm_and_random_matrices_leave_the_text_alone(drafter, prompt):
    target = ToyModel.random(12, seed=4)
    wanted = oracles.plain_greedy(target.rule, prompt, 200)
    rounds = run_rounds(target, drafter, ExactMatch(), prompt=prompt, tokens=200)
    assert emitted(rounds) == wanted
    assert any(r.tokens for r in rounds)


def test_a_run_that_goes_on_inherits_the_matrix_and_a_new_one_does_not():
    target, drafter = ToyModel.random(12, seed=4), TokenRecycling(seed="none")
    warm = Drive(drafter, target, None, Sampling(), PROMPT)
    for _ in range(10):
        warm.round(Budget(3, 8, 3), ExactMatch())
    known = warm.state.successors.copy()
    assert (known >= 0).any()
    later = Drive(drafter, target, None, Sampling(), PROMPTS[2])
    assert (later.state.successors < 0).all(), "a new run starts cold"
    assert np.array_equal(drafter.resume(later.ctx, warm.state).successors, known)


def test_a_deterministic_bigram_model_reaches_the_templates_depth():
    """Once every token was visited, each round accepts a path as deep as the template."""
    target = ToyModel.cycle(6)
    rounds = run_rounds(
        target,
        TokenRecycling(k=2, seed="none"),
        ExactMatch(),
        prompt=(0,),
        tokens=60,
        policy=Fixed(depth=4, nodes=8, width=2),
    )
    deepest = max(len(r.path) for r in rounds)
    assert deepest == 4
    seen = 0
    for done in rounds[:-2]:
        if seen >= 12:
            assert len(done.path) == 4
        seen += len(done.emitted)


def test_chain_accepts_what_the_matrix_knows_by_hand():
    """V = 4, cycle 0 1 2 3 0 ...: each round writes the rows that it scored and no others."""
    drive = Drive(TokenRecycling(k=1, seed="none"), ToyModel.cycle(4), None, Sampling(), (0,))
    budget, lengths = Budget(3, 3, 1), []
    for _ in range(6):
        lengths.append(len(drive.round(budget, ExactMatch())))
    # four rounds visit 0, 1, 2, 3 once; from then on the whole cycle is known
    assert lengths == [0, 0, 0, 0, 3, 3]
    assert drive.state.successors[:, 0].tolist() == [1, 2, 3, 0]


def test_rows_hold_the_top_of_an_independent_forward():
    target = ToyModel.random(9, seed=7)
    drive = Drive(TokenRecycling(k=3), target, None, Sampling(), PROMPT)
    for _ in range(6):
        before = list(drive.ctx.tokens)
        tree = drive.round(Budget(3, 8, 3), ExactMatch())
        last = {before[-1]: before}
        for node in range(len(tree)):
            path = [int(tree.tokens[n]) for n in tree.path_to(node + 1)]
            last[path[-1]] = [*before, *path]
        for token, text in last.items():
            wanted = target.rule(text).topk(3).indices.tolist()
            assert drive.state.successors[token].tolist() == wanted


@pytest.mark.parametrize("nodes", [1, 8, 24])
def test_the_template_is_the_most_valuable_tree(nodes):
    """Best-first growth equals keeping the most valuable of all paths."""
    from workbench.drafters.token_recycling import _RANK_VALUES

    k, depth = 3, 3
    paths = [(a,) for a in range(k)]
    for _ in range(depth - 1):
        paths += [(*p, a) for p in paths for a in range(k)]
    values = sorted(
        (float(np.prod([_RANK_VALUES[r] for r in p])) for p in set(paths)), reverse=True
    )
    tree = template(nodes, depth, k)
    found = []
    for parent, rank in tree:
        found.append((found[parent] if parent >= 0 else 1.0) * _RANK_VALUES[rank])
    assert sorted(found, reverse=True) == pytest.approx(values[: len(tree)])
    assert len(tree) == nodes
