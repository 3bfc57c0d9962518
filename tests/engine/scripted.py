"""Drafters that know the answer and follow a script, so that every acceptance pattern occurs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from workbench.core.decoding import Budget, Need
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.tree import DraftTree
from workbench.engine.decode import Decoding, decode


@dataclass(frozen=True)
class Scripted:
    """Round i proposes ``right[i]`` correct tokens, then ``wrong`` false ones.

    Args:
        text: what greedy decoding will say, prompt included.
        branching: a false sibling goes before each correct token, with a child of its own.
    """

    text: tuple[int, ...]
    right: tuple[int, ...]
    wrong: int = 1
    branching: bool = False
    fail_at: int | None = None
    needs = frozenset[Need]()
    name = "scripted"

    def init(self, ctx) -> int:
        return 0

    def propose(self, ctx, state: int, budget: Budget):
        if state == self.fail_at:
            raise ArithmeticError("the script says so")
        place, tokens, parent, above = len(ctx.tokens), [], [], -1
        for step in range(self.right[state % len(self.right)] + self.wrong):
            false = step >= self.right[state % len(self.right)]
            said = self.text[place + step] if place + step < len(self.text) else 0
            if step >= budget.depth or len(tokens) + 3 * self.branching >= budget.nodes:
                break
            if self.branching:
                tokens.append((said + 2) % 256)
                parent.append(above)
                if step + 1 < budget.depth:
                    tokens.append((said + 3) % 256)
                    parent.append(len(parent) - 1)
            tokens.append((said + 1) % 256 if false else said)
            parent.append(above)
            above = len(parent) - 1
        return DraftTree(torch.tensor(tokens, dtype=torch.long), tuple(parent)), state + 1

    def update(self, ctx, state: int, feedback) -> int:
        return state


@dataclass
class Decoded:
    """A run by hand: what was emitted, the rounds, and the object that was run."""

    new: list[int]
    rounds: list
    run: Decoding = field(repr=False)


def run_by_hand(model, prompt: list[int], drafter, count: int, *, draft=None, each=None, **options):
    """Decode with any drafter object; ``each(run, text)`` is called after every round."""
    run = Decoding(
        options.pop("session", None) or model.session(),
        make_method("drafter", drafter) if isinstance(drafter, str) else drafter,
        make_method("verifier", options.pop("verifier", "exact_match")),
        make_method("policy", options.pop("policy", "fixed"), **options.pop("knobs", {})),
        options.pop("sampling", Sampling()),
        count,
        draft=draft,
        **options,
    )
    rounds, text = [], list(prompt)
    for done in decode(run, prompt):
        rounds.append(done)
        text.extend(done.emitted)
        if each:
            each(run, list(text))
    return Decoded(text[len(prompt) :], rounds, run)


def greedy_text(model, prompt: list[int], count: int) -> list[int]:
    """New tokens of plain forwards, the slow and obvious way: no cache, no engine."""
    text = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids = torch.tensor([text])
            text.append(int(model.network(input_ids=ids, use_cache=False).logits[0, -1].argmax()))
    return text[len(prompt) :]
