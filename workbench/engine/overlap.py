"""Drafting and checking at the same time: blocks in flight, two clocks, one stretch of both."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

import torch

from workbench.core.clock import elapsed_ms
from workbench.core.decoding import Context
from workbench.core.sampling import draw, fit_vocabulary
from workbench.core.trace import Lane
from workbench.engine.decode import Decoding
from workbench.models.session import Forward

T = TypeVar("T")


class Block(NamedTuple):
    """Drafted tokens and the laws they were drawn from, ``[g v]`` (None at temperature 0).

    The laws stay on the draft's device: only those of tokens that are tested have to cross.
    """

    tokens: list[int]
    laws: torch.Tensor | None = None

    def cut(self, start: int, end: int | None = None) -> Block:
        """The tokens from ``start`` on, up to ``end``."""
        return Block(self.tokens[start:end], None if self.laws is None else self.laws[start:end])

    def joined(self, other: Block) -> Block:
        """The other block put behind this one."""
        if not self.tokens or not other.tokens:
            return other if other.tokens else self
        both = None
        if self.laws is not None and other.laws is not None:
            both = torch.cat((self.laws, other.laws))
        return Block([*self.tokens, *other.tokens], both)


@dataclass
class Clock:
    """Milliseconds since the first round: the wall's, or what overlapping would have taken."""

    simulated: bool
    began: float = field(default_factory=time.perf_counter)
    at_ms: float = 0.0

    def now_ms(self) -> float:
        return self.at_ms if self.simulated else (time.perf_counter() - self.began) * 1e3

    def lane(self, name: str, start_ms: float, took_ms: float, label: str, kept: bool) -> Lane:
        """A stretch of work of one side."""
        fate: Literal["kept", "wasted"] = "kept" if kept else "wasted"
        return Lane(name, start_ms, start_ms + took_ms, label, fate, self.simulated)


class Stretch(NamedTuple):
    """What one parallel stretch gave, when it began and how long each side took."""

    forward: Forward
    drafted: Block
    start_ms: float
    target_ms: float
    draft_ms: float


def both(
    run: Decoding, ctx: Context, waiting: Block, count: int, clock: Clock, pool: Executor
) -> Stretch:
    """Let the target check what waits while the draft writes ``count`` tokens after it.

    Where draft and target have a device each, the check ends when the target's is done with it.
    """
    uniforms, start = uniform_numbers(ctx, count), clock.now_ms()
    apart = run.draft is not None and run.draft.device != run.target.device

    def drafting() -> tuple[Block, float]:
        return timed(lambda: drafted_after(run, ctx, waiting, uniforms))

    def check() -> Forward:
        forward = run.target.forward([ctx.tokens[-1], *waiting.tokens])
        if apart:
            elapsed_ms(*forward.marks)  # waits; on one device the draft would wait with it
        return forward

    def checking() -> tuple[Forward, float]:
        return timed(check)

    if count and not clock.simulated:
        ahead = pool.submit(drafting)
        try:
            forward, target_ms = checking()
        finally:  # never leave the draft's session to a thread that still runs
            drafted, draft_ms = ahead.result()
    else:
        forward, target_ms = checking()
        drafted, draft_ms = drafting() if count else (Block([]), 0.0)
        clock.at_ms = start + max(target_ms, draft_ms)
    return Stretch(forward, drafted, start, target_ms, draft_ms)


def timed(act: Callable[[], T]) -> tuple[T, float]:
    """A result and the milliseconds it took."""
    began = time.perf_counter()
    return act(), (time.perf_counter() - began) * 1e3


def uniform_numbers(ctx: Context, count: int) -> list[float]:
    """So many uniforms as plain numbers: those of a chain are drawn before it."""
    return ctx.uniform(count, device=torch.device("cpu")).tolist()


def drafted_after(run: Decoding, ctx: Context, waiting: Block, uniforms: list[float]) -> Block:
    """One drafted token for each uniform, after the text and the waiting tokens."""
    if not uniforms:
        return Block([])
    session = run.draft
    assert session is not None, "the schedule checks that there is a draft model"
    known = session.model.vocab_size
    text = [min(token, known - 1) for token in (*ctx.tokens, *waiting.tokens)]
    session.crop(min(len(session), len(text) - 1))
    if known == ctx.vocab_size and session.runs_on(ctx.sampling, len(uniforms)):
        chain = session.run_on(text, len(uniforms), ctx.sampling, uniforms)
        if chain is not None:
            return Block(chain.tokens, None if ctx.sampling.greedy else chain.laws)
    logits = session.sync(text).logits[-1]
    tokens: list[int] = []
    laws: list[torch.Tensor] = []
    for place, uniform in enumerate(uniforms):
        law = ctx.sampling.law(fit_vocabulary(logits, ctx.vocab_size))
        level = torch.tensor(uniform, dtype=torch.float64, device=law.device)
        tokens.append(int(draw(law, level)))
        laws.append(law)
        if place + 1 < len(uniforms):
            logits = session.forward([min(tokens[-1], known - 1)]).logits[-1]
            session.commit([0])
    return Block(tokens, None if ctx.sampling.greedy else torch.stack(laws))
