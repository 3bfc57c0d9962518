"""Trees of a draft model: shapes as asked, levels as forwards, nothing wasted and nothing kept."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from oracle_heads import PROMPT

from workbench.core.decoding import Budget
from workbench.core.errors import BadKnob
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.drafters.draft_tree import SAMPLERS, DraftTreeOfModel
from workbench.engine.run import RunSettings, generate
from workbench.testing.drafter_runs import Drive, Granted, run_rounds
from workbench.testing.drafter_suite import DrafterSuite
from workbench.testing.tiny_network import tiny_network
from workbench.testing.toy_models import ToyModel

AMPLE = Budget(3, 200, 64)


@pytest.fixture(scope="module")
def models():
    return ToyModel.random(6, seed=1, scale=0.7), ToyModel.random(6, seed=2, scale=0.7)


def drive(models, temperature=1.0, **knobs) -> Drive:
    return Drive(DraftTreeOfModel(**knobs), *models, Sampling(temperature), PROMPT)


def fans(tree) -> dict[int, set[int]]:
    """Numbers of children by depth of the parent."""
    found: dict[int, set[int]] = {}
    for row in range(len(tree) + 1):
        depth = 0 if row == 0 else tree.depth[row - 1]
        found.setdefault(depth, set()).add(sum(above == row - 1 for above in tree.parent))
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("sampler", ["gumbel_top_k", "independent", "greedy_top"])
def test_every_node_has_as_many_children_as_branching_says(models, sampler, temperature):
    tree = drive(models, temperature, sampler=sampler, branching="3,2,1").propose(AMPLE, seed=1)
    assert len(tree) == 3 + 6 + 6
    assert fans(tree) == {0: {3}, 1: {2}, 2: {1}, 3: {0}}


def test_the_last_number_holds_for_deeper_levels(models):
    tree = drive(models, branching="2,1").propose(Budget(5, 99, 9), seed=1)
    assert fans(tree) == {0: {2}, 1: {1}, 2: {1}, 3: {1}, 4: {1}, 5: {0}}


def test_sequences_run_side_by_side(models):
    tree = drive(models, sampler="sequences", width=4).propose(AMPLE, seed=1)
    assert fans(tree) == {0: {4}, 1: {1}, 2: {1}, 3: {0}}
    assert tree.with_replacement


def test_a_beam_has_its_width_at_every_level_and_no_sequence_twice(models):
    truncated = 0
    for seed in range(30):
        tree = drive(models, sampler="stochastic_beam", width=4).propose(AMPLE, seed=seed)
        assert [tree.depth.count(level) for level in (1, 2, 3)] == [4, 4, 4]
        ends = [tree.path_to(row) for row in range(1, 13) if tree.depth[row - 1] == 3]
        assert len({tuple(tree.tokens[list(path)].tolist()) for path in ends}) == 4
        truncated += len(fans(tree)[1] & {0}) > 0
    assert truncated, "some parent lost all its children, as the paper's early truncation says"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_siblings_repeat_only_where_drawn_with_replacement(models, sampler):
    doubled = 0
    for seed in range(40):
        tree = drive(models, sampler=sampler, branching="3,3", width=3).propose(AMPLE, seed=seed)
        for above in {-1, *tree.parent}:
            tokens = [int(tree.tokens[n]) for n, a in enumerate(tree.parent) if a == above]
            doubled += len(set(tokens)) < len(tokens)
    assert (doubled > 0) == (sampler in ("independent", "sequences"))


@pytest.mark.parametrize("sampler", ["independent", "sequences"])
def test_rows_of_one_path_have_one_law(sampler):
    """k-SEQ takes them for one state; equal laws must not differ by rounding."""
    target, draft = tiny_network(5, seed=2), tiny_network(5, seed=3)
    walk, noise = draft.fused, torch.Generator().manual_seed(1)

    def rounded(*args):
        done = walk(*args)
        done.final.mul_(1 + 1e-4 * torch.rand(len(done.final), 1, generator=noise))
        return done

    draft.fused = rounded
    knobs = dict(sampler=sampler, branching="4,3,2", width=12)
    made, shared = Drive(DraftTreeOfModel(**knobs), target, draft, Sampling(1.0), PROMPT), 0
    for seed in range(5):
        tree, laws = made.propose(AMPLE, seed=seed), {}
        for node, law in enumerate(tree.probs):
            path = tuple(tree.tokens[tree.path_to(tree.parent[node] + 1)].tolist())
            shared += path in laws and len(path) > 0
            assert torch.equal(laws.setdefault(path, law), law)
        p = torch.ones(len(tree) + 1, 5) / 5
        make_method("verifier", "spectr").verify(tree, p)
    assert shared > 10


def test_a_level_is_one_pass_over_its_own_nodes():
    target, draft = tiny_network(5, seed=2), tiny_network(5, seed=3)
    made = Drive(DraftTreeOfModel(branching="3,2,1"), target, draft, Sampling(1.0), PROMPT)
    session = made.ctx.draft
    made.propose(AMPLE, seed=1)
    before, fed = session.forwards, []
    inner = session.model.fused

    def counted(rows, *args):
        fed.append(len(rows.ids))
        return inner(rows, *args)

    session.model.fused = counted
    made.propose(AMPLE, seed=1)
    assert fed == [1, 3, 6], "the root, then each level's nodes; the last level is not scored"
    assert session.forwards - before == 3
    assert session.tokens == made.ctx.tokens[:-1], "no row of the tree is kept"


def test_probs_of_a_tree_node_are_the_draft_models_after_its_path():
    target, draft = tiny_network(5, seed=2), tiny_network(5, seed=3)
    made = Drive(
        DraftTreeOfModel(sampler="independent", branching="2,2,2"),
        target,
        draft,
        Sampling(1.0),
        PROMPT,
    )
    tree = made.propose(AMPLE, seed=5)
    for node, above in enumerate(tree.parent):
        path = [int(tree.tokens[n]) for n in tree.path_to(above + 1)]
        wanted = draft.rule([*made.ctx.tokens, *path]).softmax(-1)
        assert torch.allclose(tree.probs[node].double(), wanted, atol=1e-9)


def test_without_replacement_accepts_more_at_equal_nodes(models):
    """Exact expected acceptance, the mean over many drafts of both samplers."""
    reached = {}
    for sampler, rule in (("gumbel_top_k", "rsd"), ("independent", "multi_round")):
        made = drive(models, sampler=sampler, branching="3,2")
        verifier = make_method("verifier", rule)
        total = 0.0
        for seed in range(300):
            tree = made.propose(Budget(2, 9, 3), seed=seed)
            texts = [
                [*PROMPT, *(int(tree.tokens[n]) for n in tree.path_to(row))]
                for row in range(len(tree) + 1)
            ]
            p = torch.stack([models[0].rule(text).softmax(-1) for text in texts])
            stop = verifier.verify(tree, p).stop
            depth = torch.tensor([0, *tree.depth], dtype=stop.dtype)
            total += float((stop * depth).sum())
        reached[sampler] = total / 300
    assert reached["gumbel_top_k"] > reached["independent"] + 0.05, reached


@pytest.mark.parametrize("short", ["target", "draft"])
@pytest.mark.parametrize("sampler", ["gumbel_top_k", "stochastic_beam", "sequences"])
def test_a_tree_larger_than_the_context_is_cut_to_it(short, sampler):
    """Near the end of either context the engine grants what still fits, and goes on without."""
    models = {"target": tiny_network(5, seed=2), "draft": tiny_network(5, seed=3)}
    models[short].network.config.max_position_embeddings = 40
    tokens = 40 - len(PROMPT) - 1 if short == "target" else 60
    rounds = run_rounds(
        models["target"],
        DraftTreeOfModel(sampler=sampler, branching="4,4,4", width=8),
        make_method("verifier", "spectr" if sampler == "sequences" else "rsd"),
        draft=models["draft"],
        prompt=PROMPT,
        tokens=tokens,
        sampling=Sampling(1.0, seed=1),
        policy=Granted(Budget(4, 84, 8)),
    )
    assert sum(len(done.emitted) for done in rounds) == tokens
    sizes = [len(done.tokens) for done in rounds]
    assert sizes[0] > 20 and sizes[-1] < 5, sizes


@pytest.mark.parametrize("branching", ["", "3,,1", "two", "0", "-1,2", "2.5"])
def test_a_branching_that_is_no_list_of_numbers(branching):
    with pytest.raises(BadKnob, match="branching="):
        generate(
            RunSettings("zoo:target", "x", DraftTreeOfModel(branching=branching), draft="zoo:draft")
        )


class BeamInTokenOrder(DraftTreeOfModel):
    """The classic mistake: what a beam kept is handed on by rising token id, not by value."""

    def propose(self, ctx, state, budget):
        tree, state = super().propose(ctx, state, budget)
        if not len(tree):
            return tree, state
        order = sorted(range(len(tree)), key=lambda n: (tree.depth[n], int(tree.tokens[n])))
        place = {old: new for new, old in enumerate(order)} | {-1: -1}
        parent = tuple(place[tree.parent[old]] for old in order)
        tokens, laws, shrunk = tree.tokens[order], tree.probs[order], []
        for node, above in enumerate(parent):
            elder = [n for n in range(node) if parent[n] == above]
            law = laws[[n for n, a in enumerate(parent) if a == above]]
            law = law[(law > 0).sum(-1).argmax()].clone()  # the law before anything was taken out
            law[tokens[elder]] = 0
            shrunk.append(law / law.sum())
        return dataclasses.replace(
            tree, tokens=tokens, parent=parent, probs=torch.stack(shrunk), score=None
        ), state


@pytest.mark.parametrize("made", [DraftTreeOfModel, BeamInTokenOrder])
def test_beams_have_the_targets_law_only_in_the_order_of_their_values(made):
    """Mean of exact output laws over many beams; sorted siblings must show."""
    suite = DrafterSuite(made(sampler="stochastic_beam", width=3))
    honest = made is DraftTreeOfModel
    with nullcontext() if honest else pytest.raises(AssertionError, match="off by"):
        suite.check_exact_output(Sampling(1.0), make_method("verifier", "rsd"), draws=300)
