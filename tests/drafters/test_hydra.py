"""Hydra: heads that read the path, and a prefix layer that only ever sees committed states."""

import copy

import pytest
import torch
from oracle_heads import PROMPT

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.drafters.hydra import Hydra, HydraHeads
from workbench.drafters.medusa import MedusaHeads
from workbench.models.attachments import load_attachment
from workbench.models.blocks import BlockStore
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive, emitted, run_rounds
from workbench.verifiers.exact_match import ExactMatch


@pytest.fixture
def random_heads(tiny) -> HydraHeads:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        heads = HydraHeads(tiny.network.config, 3).double()
        for weight in heads.parameters():
            torch.nn.init.normal_(weight)
    return heads.requires_grad_(False)


def driven(tiny, heads, rounds: int = 0) -> Drive:
    drive = Drive(Hydra(heads="untrained"), tiny, None, Sampling(1.0, seed=1), PROMPT)
    drive.state.heads = heads
    for _ in range(rounds):
        drive.round(Budget(3, 8, 2), ExactMatch())
    return drive


def families(tree) -> dict[int, list[int]]:
    """Tokens of the second level by their parent."""
    below: dict[int, list[int]] = {}
    for node, above in enumerate(tree.parent):
        if tree.depth[node] == 2:
            below.setdefault(above, []).append(int(tree.tokens[node]))
    return below


def test_without_the_path_children_are_the_same_everywhere(tiny, random_heads):
    budget = Budget(2, 9, 3)
    width = tiny.network.config.hidden_size
    for head in (*random_heads.straight, *random_heads.bent):
        head.weight[:, width:] *= 4
    seeing = families(driven(tiny, random_heads).propose(budget))
    blind = copy.deepcopy(random_heads)
    for head in (*blind.straight, *blind.bent):
        head.weight[:, width:] = 0
    unseeing = families(driven(tiny, blind).propose(budget))
    assert len(unseeing) > 1 and len(seeing) > 1
    first = {tokens[0] for tokens in unseeing.values()}
    assert len(first) == 1, "a head that ignores the path drafts the same below every parent"
    assert len({tokens[0] for tokens in seeing.values()}) > 1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_is_one_head_on_the_tokens_of_its_path(tiny, random_heads, level):
    """Every node is the ranked child of its parent by the slow formula, token by token."""
    drive = driven(tiny, random_heads, rounds=4)
    tree = drive.propose(Budget(3, 12, 2), seed=4)
    hidden = tiny.network.base_model(torch.tensor([drive.ctx.tokens[:-1]])).last_hidden_state
    newest = random_heads.prefixed(hidden)[0, -1]
    embed = tiny.network.get_input_embeddings()
    checked = 0
    for row in range(len(tree) + 1):
        nodes = [node for node, above in enumerate(tree.parent) if above == row - 1]
        path = [int(tree.tokens[node]) for node in tree.path_to(row)]
        if len(path) != level or not nodes:
            continue
        words = torch.tensor([drive.ctx.tokens[-1], *path])
        seen = torch.cat((newest, embed(words).flatten()))
        state = random_heads.straight[level](seen) + torch.nn.functional.silu(
            random_heads.bent[level](seen)
        )
        best = tiny.network.lm_head(state).topk(len(nodes)).indices.tolist()
        assert [int(tree.tokens[node]) for node in nodes] == best
        checked += 1
    assert checked


def test_the_prefix_layer_saw_what_was_committed_and_nothing_else(tiny, random_heads):
    drive = driven(tiny, random_heads, rounds=50)
    drive.propose(Budget(3, 8, 2))
    _, state = drive.drafter.propose(drive.ctx, drive.state, Budget(3, 8, 2))
    text = drive.ctx.tokens
    assert len(text) > len(PROMPT) + 55, "some draft was accepted"
    with torch.inference_mode():
        ids = torch.tensor([text[:-1]])
        hidden = tiny.network.base_model(input_ids=ids).last_hidden_state
        store = BlockStore()
        wanted = random_heads.prefixed(hidden, store)[0, -1]
    assert len(state.store) == len(text) - 1
    assert torch.allclose(state.newest, wanted, atol=1e-9)
    n = len(store)
    assert torch.allclose(state.store.keys[:, :, :n], store.keys[:, :, :n], atol=1e-9)


def test_text_is_the_targets_with_random_heads(tiny, random_heads):
    class Given(Hydra):
        def init(self, ctx):
            state = super().init(ctx)
            state.heads = random_heads
            return state

    wanted = oracles.plain_greedy(tiny.rule, PROMPT, 40)
    drafter = Given(heads="untrained")
    rounds = run_rounds(tiny, drafter, ExactMatch(), prompt=PROMPT, tokens=40)
    assert emitted(rounds) == wanted


def test_knowing_the_path_keeps_late_heads_as_good_as_the_first(zoo_target, held_out):
    """Teacher-forced top-1: above Medusa at every head, and nearly flat where Medusa's falls."""
    hidden = zoo_target.session().sync(held_out, capture=("final",)).hidden["final"]
    truth = torch.tensor(held_out)
    heads = load_attachment("zoo", "hydra", zoo_target).fill(
        HydraHeads(zoo_target.network.config), zoo_target.anatomy.embed.weight
    )
    medusa = load_attachment("zoo", "medusa", zoo_target).fill(
        MedusaHeads(320), zoo_target.anatomy.embed.weight
    )
    mine, theirs = [], []
    with torch.inference_mode():
        prefixed = heads.prefixed(hidden[None])[0]
        embedded = zoo_target.anatomy.embed(truth)
        apart = zoo_target.anatomy.logits(medusa(hidden)).argmax(-1)
        for i in range(3):
            n = len(truth) - 2 - i
            path = torch.stack([embedded[j + 1 : j + 1 + n] for j in range(i + 1)], 1)
            guess = zoo_target.anatomy.logits(heads(i, prefixed[:n], path)).argmax(-1)
            mine.append(float((guess == truth[i + 2 :]).float().mean()))
            theirs.append(float((apart[i, :n] == truth[i + 2 :]).float().mean()))
    assert all(a > b for a, b in zip(mine, theirs, strict=True)), (mine, theirs)
    assert mine[2] > 0.8 * mine[0], f"nearly flat: {mine}"
    assert theirs[2] < 0.8 * theirs[0], f"falling: {theirs}"
