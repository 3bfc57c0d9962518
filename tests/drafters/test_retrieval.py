"""REST, RASD and fusion: merging by prefixes, pruning by the draft, and a corpus that knows."""

import numpy as np
import pytest
import torch

from workbench.core.decoding import Budget
from workbench.core.errors import BadInput, BadKnob
from workbench.core.fusion import fuse_trees
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree
from workbench.drafters.rasd import pruned
from workbench.drafters.rest import heaviest
from workbench.engine.decode import Decoding, decode
from workbench.engine.run import RunSettings, generate
from workbench.models.store import Store
from workbench.testing import oracles
from workbench.testing.drafter_runs import Granted, emitted
from workbench.testing.toy_models import ToyModel
from workbench.verifiers.exact_match import ExactMatch

A, B, C, D, E = range(5)


def tree_of(*paths):
    """The trie of some paths, as a draft tree."""
    index, tokens, parent = {}, [], []
    for path in paths:
        for end in range(1, len(path) + 1):
            if path[:end] not in index:
                index[path[:end]] = len(tokens)
                tokens.append(path[end - 1])
                parent.append(index.get(path[: end - 1], -1))
    return DraftTree(torch.tensor(tokens, dtype=torch.long), tuple(parent))


def paths_of(tree):
    return {
        tuple(tree.tokens[node].item() for node in tree.path_to(row))
        for row in range(1, len(tree) + 1)
    }


def test_the_example_of_the_paper_has_five_nodes():
    merged, origin = fuse_trees(tree_of((A, B), (A, C)), tree_of((A, B, D), (E,)), 20, 9, 9)
    assert paths_of(merged) == {(A,), (A, B), (A, C), (A, B, D), (E,)}
    assert len(merged) == 5
    named = dict(
        zip(
            [tuple(merged.tokens[merged.path_to(r)].tolist()) for r in range(1, 6)],
            origin,
            strict=True,
        )
    )
    assert named == {
        (A,): "both",
        (A, B): "both",
        (A, C): "first",
        (A, B, D): "second",
        (E,): "second",
    }


def test_merging_what_is_known_or_nothing_changes_nothing():
    first = tree_of((A, B), (A, C), (D,))
    merged, origin = fuse_trees(first, tree_of((A, B)), 20, 9, 9)
    assert merged.tokens.tolist() == first.tokens.tolist() and merged.parent == first.parent
    assert origin.count("both") == 2
    alone, origin = fuse_trees(DraftTree.empty(), first, 20, 9, 9)
    assert paths_of(alone) == paths_of(first) and set(origin) == {"second"}


@pytest.mark.parametrize(
    ("nodes", "depth", "width"), [(3, 9, 9), (20, 1, 9), (20, 9, 1), (0, 9, 9)]
)
def test_limits_keep_the_tree_whole(nodes, depth, width):
    merged, _ = fuse_trees(
        tree_of((A, B, C), (A, D), (E,)), tree_of((B, C), (A, B, D)), nodes, depth, width
    )
    assert len(merged) <= nodes
    assert max(merged.depth, default=0) <= depth
    assert merged.drawn is False
    for node, above in enumerate(merged.parent):
        siblings = [n for n, p in enumerate(merged.parent) if p == above]
        assert len(siblings) <= width and above < node


def test_the_heaviest_prefixes_by_hand():
    paths, counts = heaviest([[A, B], [A, B], [A, C], [D]], 3, 9)
    assert paths == [(A,), (A, B), (A, C)] or paths == [(A,), (A, B), (D,)]
    assert paths[2] == (A, C), "equal counts go to the continuation met first"
    assert counts[(A,)] == 3 and counts[(D,)] == 1
    paths, _ = heaviest([[A, B], [C, D], [C, D]], 9, 1)
    assert paths == [(C,), (C, D)], "one child a node"


def test_pruning_goes_by_the_first_token_alone():
    law = torch.tensor([0.5, 0.1, 0.3, 0.05, 0.05])
    kept = pruned(tree_of((A, E, E), (B, A), (C,)), law, 2, 5)
    assert paths_of(kept) == {(A,), (A, E), (A, E, E), (C,)}
    everything = tree_of((B,), (D,))
    assert paths_of(pruned(everything, None, 1, 5)) == paths_of(everything)
    assert len(pruned(everything, law, 1, 5)) == 0


def run(drafter, target, store, tokens, prompt, draft=None):
    job = Decoding(
        target.session(),
        drafter,
        ExactMatch(),
        Granted(),
        Sampling(),
        tokens,
        draft=draft.session() if draft else None,
        store=store,
    )
    return list(decode(job, prompt))


def test_what_is_likely_and_frequent_comes_first():
    """A node is worth its branch's probability times its count's share, at most its parent's."""
    law = torch.tensor([0.5, 0.1, 0.3, 0.05, 0.05])
    found = tree_of((C, D), (A, B), (A, D))  # nodes C, CD, A, AB, AD
    shares = torch.tensor([0.6, 0.5, 0.4, 0.1, 0.35])
    found = DraftTree(found.tokens, found.parent, score=shares)
    kept = pruned(found, law, 3, 5)
    order = [tuple(kept.tokens[kept.path_to(row)].tolist()) for row in range(1, 6)]
    assert order == [(A,), (C,), (A, D), (C, D), (A, B)]  # .2, .18, .175, .15, .05
    assert kept.score.tolist() == pytest.approx([0.4, 0.6, 0.35, 0.5, 0.1])
    merged, _ = fuse_trees(DraftTree.empty(), kept, 3, 9, 9)
    assert paths_of(merged) == {(A,), (C,), (A, D)}, "the best nodes are those that find room"


LONG = 11  # letters of the periodic answer that a corpus may hold


def known_answer():
    """A target, a prompt, its answer, and a corpus of nothing else."""
    target, prompt = ToyModel.cycle(LONG), [0, 1, 2]
    wanted = oracles.plain_greedy(target.rule, prompt, 40)
    return target, prompt, wanted, Store.of([np.arange(60) % LONG])


def wrong_draft(target: ToyModel) -> ToyModel:
    """Always sure, never right: it says the target's third choice."""
    return ToyModel(lambda tokens: target.rule(tokens).roll(2), LONG)


@pytest.mark.parametrize("name", ["rest", "rasd", "fuse", "aded"])
def test_a_corpus_that_holds_the_answer_is_followed_to_the_end(name):
    """As deep as it is looked up, every round, however bad the draft beside it is."""
    target, prompt, wanted, store = known_answer()
    knobs = {"rasd": {"first": LONG}, "fuse": {"second": "rest"}}.get(name, {})
    drafter = make_method("drafter", name, **knobs)
    rounds = run(drafter, target, store, 40, prompt, wrong_draft(target))
    assert emitted(rounds) == wanted
    assert {done.accepted for done in rounds} == {3}, "the budget's depth, every round"


def test_the_same_corpus_shuffled_is_not_followed():
    """The check above bites: what is looked up must be the answer, not any text."""
    target, prompt, wanted, store = known_answer()
    mixed = Store.of([np.random.default_rng(1).permutation(store.tokens[:-1])])
    for name in ("rest", "aded"):
        rounds = run(make_method("drafter", name), target, mixed, 40, prompt)
        assert emitted(rounds) == wanted
        # A whole turn of the text has to be written before a table that learns knows it.
        known = next((place for place, r in enumerate(rounds) if r.accepted == 3), len(rounds))
        assert sum(len(r.emitted) for r in rounds[:known]) >= LONG - len(prompt)


def test_branches_that_the_draft_finds_unlikely_are_pruned():
    target, prompt, _, store = known_answer()
    wrong = wrong_draft(target)
    rounds = run(make_method("drafter", "rasd", first=1), target, store, 20, prompt, wrong)
    for done in rounds[:-2]:  # the last ones have no room for the draft, so nobody judges
        assert done.report["pruned"] >= 2 and set(done.report["origin"]) == {"draft"}


@pytest.mark.parametrize(("files", "said"), [({}, "holds no text"), ({"a.py": b"\xff"}, "no text")])
@pytest.mark.parametrize("name", ["rest", "aded"])
def test_a_run_over_a_folder_without_text_is_refused(zoo_target, tmp_path, name, files, said):
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    drafter = make_method("drafter", name, folder=str(tmp_path))
    with pytest.raises(BadInput, match=said):
        generate(RunSettings(zoo_target, "def f(", drafter))
    with pytest.raises(BadInput, match="is no folder; name one, or 'stdlib'"):
        missing = make_method("drafter", name, folder=str(tmp_path / "nowhere"))
        generate(RunSettings(zoo_target, "def f(", missing))


@pytest.mark.parametrize("name", ["rest", "rasd", "fuse", "aded"])
def test_useless_corpora_leave_the_text_alone(name):
    target, draft, prompt = ToyModel.random(5, seed=3), ToyModel.random(5, seed=4), [0, 1, 2]
    wanted = oracles.plain_greedy(target.rule, prompt, 30)
    rng = np.random.default_rng(1)
    for store in (Store.of([]), Store.of([rng.integers(0, 5, 400)])):
        drafter = make_method("drafter", name)
        assert emitted(run(drafter, target, store, 30, prompt, draft)) == wanted


def test_origins_are_recorded():
    target, draft = ToyModel.random(4, seed=3), ToyModel.random(4, seed=4)
    store = Store.of([np.random.default_rng(1).integers(0, 4, 300)])
    rounds = run(make_method("drafter", "rasd"), target, store, 30, [0, 1, 2], draft)
    seen = set()
    for done in rounds:
        assert len(done.report["origin"]) == len(done.tokens)
        seen |= set(done.report["origin"])
    assert {"draft", "retrieved"} <= seen


def test_fusion_asks_the_policy_about_one_chain_only():
    heard = []

    class Counting(Granted):
        def go(self, state, steps):
            heard.append([step.depth for step in steps])
            return len(steps) < 2

    target, draft = ToyModel.random(4, seed=3), ToyModel.random(4, seed=4)
    for parts in (("draft_model", "draft_tree"), ("token_recycling", "draft_model")):
        heard.clear()
        job = Decoding(
            target.session(),
            make_method("drafter", "fuse", first=parts[0], second=parts[1]),
            ExactMatch(),
            Counting(Budget(4, 12, 3)),
            Sampling(),
            20,
            draft=draft.session(),
        )
        rounds = list(decode(job, [0, 1, 2]))
        assert heard and all(depths == sorted(set(depths)) for depths in heard)
        assert all(max(r.depth, default=0) <= 2 for r in rounds)


def test_fusion_carries_the_state_of_its_parts_on():
    target, draft = ToyModel.random(4, seed=3), ToyModel.random(4, seed=4)
    fused = make_method("drafter", "fuse", first="draft_model", second="token_recycling")

    def job(carried=None):
        return Decoding(
            target.session(),
            fused,
            ExactMatch(),
            Granted(),
            Sampling(),
            20,
            draft=draft.session(),
            carried=carried,
        )

    first = job()
    list(decode(first, [0, 1, 2]))
    table = first.drafting.second_state.successors
    known = (table >= 0).sum()
    later = job(first.drafting)
    next(decode(later, [3, 3, 3]))
    assert (later.drafting.second_state.successors >= 0).sum() >= known > 0


def test_two_corpora_in_one_fusion_are_refused(tmp_path):
    rest = make_method("drafter", "rest", folder=str(tmp_path))
    with pytest.raises(BadKnob, match="different corpora"):
        _ = make_method("drafter", "fuse", first=rest, second="aded").corpus
