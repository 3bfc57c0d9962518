"""EAGLE: true features in the store, the token one step ahead beside each, the likeliest paths."""

import pytest
import torch
from oracle_heads import PROMPT

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.drafters.eagle import Eagle, EagleHead
from workbench.models.attachments import load_attachment
from workbench.models.blocks import BlockStore
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive, emitted, run_rounds
from workbench.verifiers.exact_match import ExactMatch


@pytest.fixture(scope="module")
def random_head(tiny) -> EagleHead:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        head = EagleHead(tiny.network.config).double()
        for weight in head.parameters():
            torch.nn.init.normal_(weight, std=0.4)
    return head.requires_grad_(False)


def driven(tiny, head, beam: int = 4, rounds: int = 0) -> Drive:
    drive = Drive(Eagle(heads="untrained", beam=beam), tiny, None, Sampling(1.0, seed=1), PROMPT)
    drive.state.head = head
    for _ in range(rounds):
        drive.round(Budget(3, 8, 2), ExactMatch())
    return drive


@pytest.fixture(scope="module")
def head(zoo_target) -> EagleHead:
    made = EagleHead(zoo_target.network.config)
    return load_attachment("zoo", "eagle", zoo_target).fill(made, zoo_target.anatomy.embed.weight)


def along(tiny, head, text: list[int]) -> torch.Tensor:
    """Guessed features by the slow way: one pass over true features and the tokens after them."""
    ids = torch.tensor([text])
    features = tiny.network.base_model(input_ids=ids[:, :-1]).last_hidden_state
    return head(tiny.network.get_input_embeddings()(ids[:, 1:]), features)[0]


def path_law(tiny, head, text: list[int], path: list[int]) -> torch.Tensor:
    """Log law after ``path``: true features for the text, the head's own for the path."""
    embed = tiny.network.get_input_embeddings()
    ids = torch.tensor([text])
    features = list(tiny.network.base_model(input_ids=ids[:, :-1]).last_hidden_state[0])
    tokens = list(text)
    feature = along(tiny, head, text)[-1]
    for token in path:
        features.append(feature)
        tokens.append(token)
        after = embed(torch.tensor([tokens[1:]]))
        feature = head(after, torch.stack(features)[None])[0, -1]
    return tiny.network.lm_head(feature).log_softmax(-1)


@torch.inference_mode()
def test_the_tree_is_the_likeliest_of_all_paths(tiny, random_head):
    """With a beam that keeps everything, brute force over every path finds the same nodes."""
    drive = driven(tiny, random_head, beam=32, rounds=3)
    tree = drive.propose(Budget(3, 14, 5), seed=1)
    text = drive.ctx.tokens
    chance: dict[tuple[int, ...], float] = {}
    level = [((), 0.0)]
    for _ in range(3):
        grown = []
        for path, score in level:
            law = path_law(tiny, random_head, text, list(path))
            grown += [((*path, token), score + float(law[token])) for token in range(5)]
        chance.update(grown)
        level = grown
    wanted = sorted(chance, key=chance.get, reverse=True)[:14]
    found = {}
    for row in range(1, len(tree) + 1):
        path = tuple(int(tree.tokens[node]) for node in tree.path_to(row))
        found[path] = float(tree.score[row - 1])
    assert set(found) == set(wanted)
    for path, score in found.items():
        assert score == pytest.approx(torch.tensor(chance[path]).exp().item(), rel=1e-5)


@torch.inference_mode()
def test_the_store_equals_a_fresh_prefill_after_many_rounds(tiny, random_head):
    drive = driven(tiny, random_head, rounds=30)
    _, state = drive.drafter.propose(drive.ctx, drive.state, Budget(3, 8, 2))
    text = drive.ctx.tokens
    assert len(text) > len(PROMPT) + 33, "some draft was accepted"
    store, ids = BlockStore(), torch.tensor([text])
    features = tiny.network.base_model(input_ids=ids[:, :-1]).last_hidden_state
    wanted = random_head(tiny.network.get_input_embeddings()(ids[:, 1:]), features, store=store)
    n = len(text) - 1
    assert len(state.store) == len(store) == n, "drafted rows are dropped"
    assert torch.allclose(state.store.keys[:, :, :n], store.keys[:, :, :n], atol=1e-9)
    assert torch.allclose(state.store.values[:, :, :n], store.values[:, :, :n], atol=1e-9)
    assert torch.allclose(state.newest, wanted[0, -1], atol=1e-9)


def test_text_is_the_targets_with_a_random_head(tiny, random_head):
    class Given(Eagle):
        def init(self, ctx):
            state = super().init(ctx)
            state.head = random_head
            return state

    wanted = oracles.plain_greedy(tiny.rule, PROMPT, 40)
    rounds = run_rounds(tiny, Given(heads="untrained"), ExactMatch(), prompt=PROMPT, tokens=40)
    assert emitted(rounds) == wanted


@torch.inference_mode()
def top_one(model, head, text: list[int], shift: int) -> float:
    """Share of tokens two places on that the head gets right, fed with the token ``shift`` on."""
    features = model.session().sync(text, capture=("final",)).hidden["final"]
    truth = torch.tensor(text)
    n = len(text) - 2
    guess = head(model.anatomy.embed(truth[shift : shift + n])[None], features[None, :n])[0]
    return float((model.anatomy.logits(guess).argmax(-1) == truth[2:]).float().mean())


def test_the_token_one_step_ahead_is_what_it_lives_from(zoo_target, held_out, head):
    right, late = top_one(zoo_target, head, held_out, 1), top_one(zoo_target, head, held_out, 0)
    assert right > 0.15
    assert late < 0.6 * right, f"fed with the token that made the feature: {late:.3f}, {right:.3f}"


@torch.inference_mode()
def test_a_second_step_on_its_own_features_stays_good(zoo_target, held_out, head):
    """Unrolled training: what follows a right guess is guessed nearly as well as the first."""
    features = zoo_target.session().sync(held_out, capture=("final",)).hidden["final"]
    truth, embed = torch.tensor(held_out), zoo_target.anatomy.embed
    first = head(embed(truth[1:])[None], features[None, :-1])
    second = head(embed(truth[2:])[None], first[:, :-1])
    hits = []
    for guess, shift in ((first, 2), (second, 3)):
        said = zoo_target.anatomy.logits(guess[0, :-1]).argmax(-1)
        hits.append((said == truth[shift:]).float())
    assert float(hits[1].mean()) > 0.75 * float(hits[0].mean())
