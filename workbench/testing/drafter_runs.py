"""A drafter at work on toy models: alone, round by round, and through the engine."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch

from workbench.core.decoding import (
    Budget,
    Context,
    Drafter,
    DraftStep,
    Feedback,
    Need,
    Outcome,
    Verdict,
    Verifier,
)
from workbench.core.sampling import Sampling, draw
from workbench.core.trace import Round
from workbench.core.tree import DraftTree
from workbench.engine.decode import Decoding, decode, prepare
from workbench.models.store import Store
from workbench.testing.recall import Recall
from workbench.verifiers.exact_match import ExactMatch

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 1]


@dataclass(frozen=True)
class Granted:
    """A length policy that grants one budget for ever."""

    grant: Budget = Budget(3, 6, 3)

    def init(self, ctx: Context) -> None:
        return None

    def budget(self, state: None) -> Budget:
        return self.grant

    def go(self, state: None, steps: Sequence[DraftStep]) -> bool:
        return True

    def update(self, state: None, tree: DraftTree, outcome: Outcome) -> None:
        return None


class RefuseFirst:
    """Accepts nothing for some rounds (lossless: the bonus is drawn from p), then passes on."""

    lossless, chains_only, name = True, False, "refuse_first"

    def __init__(self, rounds: int, inner: Verifier):
        self.left, self.inner = rounds, inner

    def verify(self, tree: DraftTree, p: torch.Tensor) -> Verdict:
        if self.left <= 0:
            return self.inner.verify(tree, p)
        self.left -= 1
        stop = torch.zeros(len(tree) + 1, dtype=p.dtype)
        stop[0] = 1
        return Verdict(stop, lambda row: p[row], torch.zeros(len(tree), dtype=p.dtype))


@cache
def toy_store() -> Store:
    """Random documents over three tokens, for drafters that look things up."""
    generator = torch.Generator().manual_seed(5)
    documents = [torch.randint(0, 3, (40,), generator=generator).numpy() for _ in range(6)]
    return Store.of(documents, "toy")


def walks_the_target(drafter: Drafter) -> bool:
    """Whether only a network with real layers can be its target."""
    return bool(drafter.needs & {Need.TARGET, Need.HIDDEN, Need.LEARNER, Need.TWIN})


class Drive:
    """A drafter at work without the engine: a context, a state and the two sessions.

    With ``recalls`` the passes that many drafts from one place share are computed once.
    """

    def __init__(
        self,
        drafter,
        target,
        draft,
        sampling: Sampling,
        prompt: Sequence[int] = PROMPT,
        recalls: bool = False,
    ):
        self.drafter, self.target = drafter, target.session()
        run = Decoding(
            self.target,
            drafter,
            ExactMatch(),
            Granted(),
            sampling,
            1 << 16,
            draft=draft.session() if Need.DRAFT in drafter.needs else None,
            store=toy_store(),
        )
        self.ctx, self.capture = prepare(run, list(prompt))
        self.state = drafter.init(self.ctx)
        self._recalls, self._recall = recalls, Recall()

    def propose(self, budget: Budget, seed: int | None = None) -> DraftTree:
        """A proposal from a copy of the state, so that asking twice starts from the same place."""
        if seed is not None:
            self.ctx.rng = torch.Generator().manual_seed(seed)
        length = len(self.target)
        with self._recall.on() if self._recalls else nullcontext():
            tree, _ = self.drafter.propose(self.ctx, copy.deepcopy(self.state), budget)
        assert len(self.target) == length, "propose left tokens in the target's session"
        return tree

    def round(self, budget: Budget, verifier: Verifier) -> DraftTree:
        """One whole round, as the engine does it."""
        ctx, self._recall = self.ctx, Recall()
        tree, self.state = self.drafter.propose(ctx, self.state, budget)
        rows = [ctx.tokens[-1], *tree.tokens.tolist()]
        parent = (-1, *(above + 1 for above in tree.parent))
        forward = self.target.forward(rows, parent, capture=self.capture)
        verdict = verifier.verify(tree, ctx.sampling.law(forward.logits))
        uniforms = torch.rand(2, generator=ctx.rng, dtype=torch.float64)
        row = int(draw(verdict.stop.double(), uniforms[0]))
        path, bonus = tree.path_to(row), int(draw(verdict.bonus(row), uniforms[1]))
        emitted = (*(int(tree.tokens[n]) for n in path), bonus)
        kept = [0, *(n + 1 for n in path)]
        self.target.commit(kept)
        outcome = Outcome(tuple(path), bonus, emitted)
        feedback = Feedback(tree, forward.logits, forward.hidden, outcome, ctx.tokens)
        self.state = self.drafter.update(ctx, self.state, feedback)
        ctx.tokens = [*ctx.tokens, *emitted]
        if self.capture:
            ctx.provided[Need.HIDDEN].append(forward.hidden, kept)
        return tree


def run_rounds(
    target,
    drafter: Drafter,
    verifier: Verifier,
    *,
    draft=None,
    sampling: Sampling | None = None,
    prompt: Sequence[int] = PROMPT,
    tokens: int = 40,
    policy=None,
    sessions: tuple | None = None,
    store: Store | None = None,
) -> list[Round]:
    """Decode through the engine; ``sessions`` = (target, draft) reuses them."""
    if sessions is None:
        sessions = (target.session(), draft.session() if Need.DRAFT in drafter.needs else None)
    run = Decoding(
        sessions[0],
        drafter,
        verifier,
        policy or Granted(),
        sampling or Sampling(),
        tokens,
        draft=sessions[1],
        store=store or toy_store(),
    )
    return list(decode(run, list(prompt)))


def emitted(rounds: Sequence[Round]) -> list[int]:
    return [token for done in rounds for token in done.emitted]


def timeless(rounds: Sequence[Round]) -> list[dict]:
    """Rounds without their clocks, comparable."""
    fields = [f for f in Round.__struct_fields__ if f not in ("ms", "forward_ms")]
    return [{name: getattr(done, name) for name in fields} for done in rounds]
