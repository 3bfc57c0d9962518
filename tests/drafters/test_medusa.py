"""Medusa: what its heads are trained to say, what an oracle would gain, and what nothing gains."""

import dataclasses
import json

import pytest
import torch
from oracle_heads import PROMPT, saying

from workbench.core.decoding import Budget
from workbench.core.sampling import Sampling
from workbench.core.template import grown_template
from workbench.drafters.medusa import Medusa, MedusaHeads, MedusaState
from workbench.engine.run import RunSettings, generate
from workbench.models.attachments import EMBEDDED, load_attachment
from workbench.policies.fixed import Fixed
from workbench.testing import oracles
from workbench.testing.drafter_runs import Drive, Granted, emitted, run_rounds
from workbench.verifiers.exact_match import ExactMatch

RANKS = ((0.6, 0.2), (0.5, 0.2), (0.4, 0.2))


class OracleHeads(torch.nn.Module):
    """Heads that look the future up: which place a hidden state belongs to is known by its value.

    Args:
        shift: 0 = the truth; any other number says a token that is certainly wrong.
    """

    def __init__(self, model, text: list[int], shift: int = 0):
        super().__init__()
        self.model, self.text, self.shift = model, text, shift
        ids = torch.tensor([text])
        with torch.inference_mode():
            self.states = model.network.base_model(input_ids=ids).last_hidden_state[0]

    def forward(self, hidden):
        place = int((self.states - hidden).norm(dim=-1).argmin())
        future = self.text[place + 2 : place + 2 + len(RANKS)]
        future = torch.tensor(future + [0] * (len(RANKS) - len(future)))
        return saying(self.model, (future + self.shift) % self.model.vocab_size)


@dataclasses.dataclass(frozen=True)
class WithHeads(Medusa):
    """Medusa whose heads are given, not loaded."""

    given: torch.nn.Module | None = None

    def init(self, ctx):
        return MedusaState(self.given, RANKS)


def test_oracle_heads_are_accepted_to_the_last_level(tiny, greedy_answer):
    drafter = WithHeads(given=OracleHeads(tiny, greedy_answer))
    rounds = run_rounds(tiny, drafter, ExactMatch(), prompt=PROMPT, tokens=40)
    assert emitted(rounds) == greedy_answer[len(PROMPT) :][:40]
    assert {done.accepted for done in rounds[:-1]} == {3}, "every level, every round"
    assert all(max(done.depth) == 3 for done in rounds[:-1])


def test_heads_that_are_always_wrong_cost_nothing_but_time(tiny, greedy_answer):
    drafter = WithHeads(given=OracleHeads(tiny, greedy_answer, shift=1), ranks=1)
    policy = Granted(Budget(3, 3, 1))
    rounds = run_rounds(tiny, drafter, ExactMatch(), prompt=PROMPT, tokens=20, policy=policy)
    assert emitted(rounds) == greedy_answer[len(PROMPT) :][:20]
    assert all(len(done.emitted) == 1 for done in rounds)


def test_children_are_the_same_under_every_parent(tiny):
    heads = MedusaHeads(16, 3).double()
    for block in heads.blocks:
        torch.nn.init.normal_(block.weight, generator=torch.Generator().manual_seed(1))
    drive = Drive(WithHeads(given=heads), tiny, None, Sampling(0.0), PROMPT)
    tree = drive.propose(Budget(2, 6, 2))
    below = {}
    for node, above in enumerate(tree.parent):
        if tree.depth[node] == 2:
            below.setdefault(above, []).append(int(tree.tokens[node]))
    assert len(below) == 2
    first, second = below.values()
    assert first == second, "the second head cannot know what the first one drafted"


def test_untrained_heads_repeat_the_last_law(tiny):
    heads = MedusaHeads(16, 3).double()
    hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(heads(hidden), hidden.expand(3, 4, 16))


def head_accuracy(model, heads, text: list[int]) -> list[float]:
    """Top-1 of the LM head, then of each head, along ``text``."""
    session = model.session()
    hidden = session.sync(text, capture=("final",)).hidden["final"]
    truth = torch.tensor(text)
    hits = [(model.anatomy.logits(hidden[:-1]).argmax(-1) == truth[1:]).float().mean()]
    with torch.inference_mode():
        guesses = model.anatomy.logits(heads(hidden)).argmax(-1)
    for i, guess in enumerate(guesses):
        hits.append((guess[: -(2 + i)] == truth[2 + i :]).float().mean())
    return [float(hit) for hit in hits]


def test_accuracy_falls_with_every_head(zoo_target, held_out):
    """Training a head on the wrong place, or reading states before the last norm, breaks this."""
    attachment = load_attachment("zoo", "medusa", zoo_target)
    heads = attachment.fill(MedusaHeads(320), zoo_target.anatomy.embed.weight)
    accuracy = head_accuracy(zoo_target, heads, held_out)
    assert accuracy == sorted(accuracy, reverse=True), accuracy
    assert accuracy[1] < 0.8 * accuracy[0] and accuracy[3] > 0.02
    shifted = head_accuracy(zoo_target, torch.nn.Sequential(heads, Rolled()), held_out)
    assert shifted[1] < accuracy[1] / 2, "heads handed round must not look as good"


class Rolled(torch.nn.Module):
    """Every head's guesses, given out as those of the next one."""

    def forward(self, guesses):
        return guesses.roll(1, 0)


def test_the_tree_is_worth_what_its_nodes_promise(zoo_target):
    """Mean accepted length = sum over nodes of the chance that the node's path is right."""
    prompt = "class Reader:\n    def __init__(self, path):\n"
    policy = Fixed(depth=3, nodes=12, width=4)
    settings = RunSettings(zoo_target, prompt, Medusa(ranks=4), policy=policy, max_new_tokens=250)
    trace = generate(settings)
    text = [*trace.prompt_tokens, *(token for done in trace.rounds for token in done.emitted)]
    promised = [
        right_nodes(guesses, text[place + 2 : place + 5])
        for place, guesses in enumerate(head_guesses(zoo_target, text))
        if len(trace.prompt_tokens) - 1 <= place < len(text) - 5
    ]
    accepted = torch.tensor([float(done.accepted) for done in trace.rounds[:-1]])
    error = float(accepted.std() / len(accepted) ** 0.5)
    assert accepted.mean() > 0.3
    assert float(accepted.mean()) == pytest.approx(sum(promised) / len(promised), abs=3 * error)


def head_guesses(model, text: list[int]) -> torch.Tensor:
    """The four best tokens of every head at every place, ``[t heads 4]``."""
    hidden = model.session().sync(text, capture=("final",)).hidden["final"]
    attachment = load_attachment("zoo", "medusa", model)
    heads = attachment.fill(MedusaHeads(320), model.anatomy.embed.weight)
    with torch.inference_mode():
        return model.anatomy.logits(heads(hidden)).topk(4, -1).indices.transpose(0, 1)


def right_nodes(guesses: torch.Tensor, truth: list[int]) -> int:
    """Nodes of the 12-node tree whose whole path is what comes next."""
    card = json.loads((EMBEDDED / "medusa" / "card.json").read_text())
    template = grown_template(tuple(tuple(row[:4]) for row in card["rank_accuracy"]), 12, 3, 4)
    paths: list[tuple[int, ...]] = []
    for above, rank in template:
        paths.append((*(paths[above] if above >= 0 else ()), rank))
    return sum(
        all(int(guesses[level, rank]) == truth[level] for level, rank in enumerate(path))
        for path in paths
    )


@pytest.mark.parametrize(
    ("depth", "nodes", "width"), [(1, 3, 3), (2, 5, 2), (3, 9, 4), (3, 6, 1), (3, 40, 3)]
)
def test_the_template_is_the_best_of_all(depth, nodes, width):
    """Growing by value reaches the largest sum that any tree of this size has (brute force)."""
    values = ((0.5, 0.3, 0.1, 0.05), (0.45, 0.2, 0.1, 0.05), (0.4, 0.15, 0.1, 0.05))
    grown = grown_template(values, nodes, depth, width)
    worth: list[float] = []
    level: list[int] = []
    for above, rank in grown:
        level.append(0 if above < 0 else level[above] + 1)
        worth.append((1.0 if above < 0 else worth[above]) * values[level[-1]][rank])
    every = [1.0]
    best: list[float] = []
    for row in values[:depth]:
        every = [value * rank for value in every for rank in row[:width]]
        best += every
    assert sum(worth) == pytest.approx(sum(sorted(best, reverse=True)[:nodes]))
    assert len(grown) == min(nodes, len(best))


@pytest.mark.parametrize("seed", range(5))
def test_any_tree_leaves_the_text_alone(tiny, seed):
    """Twenty prompts in all, each with heads that are noise and with a tree of its own."""
    generator = torch.Generator().manual_seed(seed)
    heads = MedusaHeads(16, 3).double()
    for block in heads.blocks:
        torch.nn.init.normal_(block.weight, generator=generator)
    drafter = WithHeads(given=heads)
    for budget in (Budget(1, 5, 5), Budget(3, 3, 1), Budget(3, 20, 4), Budget(2, 7, 3)):
        prompt = torch.randint(0, 5, (6,), generator=generator).tolist()
        wanted = oracles.plain_greedy(tiny.rule, prompt, 40)
        policy = Granted(budget)
        rounds = run_rounds(tiny, drafter, ExactMatch(), prompt=prompt, tokens=40, policy=policy)
        assert emitted(rounds) == wanted
