"""The target drafts for itself without some sub-layers, and searches which while it decodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from workbench.core import siblings
from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need
from workbench.core.gaussian_process import upper_confidence
from workbench.core.method import Paper, knob, method
from workbench.core.span import Span
from workbench.core.tree import DraftTree

# Confidence of a step -> siblings drafted beside the main path: the surer, the fewer.
_SIBLINGS = ((0.95, 1), (0.8, 2), (0.5, 3), (0.0, 4))
CANDIDATES = 64
KAPPA = 2.5


@dataclass
class SkipSearch:
    """The best skip set so far and everything that was tried for it.

    ``skipped [2(l-2)]`` marks attention, then MLP, of the layers between the first and the last.
    """

    skipped: np.ndarray
    score: float | None = None
    points: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    rounds: int = 0
    waited: int = 0
    start: int = 0
    session: Any = None  # holds the prompt's keys and values, for trying skip sets out


@method(
    "drafter",
    title="SWIFT (layer skipping)",
    paper=Paper(
        "SWIFT: On-the-Fly Self-Speculative Decoding for LLM Inference Acceleration",
        2024,
        "2410.06916",
    ),
)
class Swift:
    """Skip attention and MLP sub-layers to draft; learn which from the tokens just written.

    *Idea*: much of a deep model can be left out for most tokens, and which part depends on the
    text. A skip set is good if the thinned model predicts the tokens that were generated; one
    parallel pass over them tells, so the search runs beside decoding and needs no training.

    *Deviations*: the first set is scored before anything may replace it, and again when a new text
    begins, with a history that starts anew (the authors' code does neither). As there, answers
    shorter than ``window`` never search. Bayesian proposals are the best of 64 random sets by upper
    confidence, not its top coordinates. One to four siblings by confidence (three to ten there).
    Families whose attention and MLP cannot be run apart leave out whole layers (half as many as
    sub-layers, rounded down): some of the sets that the paper searches, with the same scores.

    *Cost*: a draft token costs the share of sub-layers that run, a proposal one thinned pass.

    *Raises*: ModelError for families whose layers cannot be left out.
    """

    needs = frozenset({Need.TARGET})

    ratio: float = knob(0.35, low=0.0, high=0.8, step=0.05, help="Share of sub-layers left out.")
    stop: float = knob(0.5, low=0.0, high=1.0, step=0.05, help="Stop below this probability.")
    most_siblings: int = knob(3, low=1, high=10, unit="tokens", help="Most at one place.")
    window: int = knob(16, low=4, high=128, unit="tokens", help="Text that scores a set.")
    every: int = knob(1, low=1, high=64, unit="rounds", help="Rounds between two proposals.")
    bayes_every: int = knob(5, low=1, high=64, unit="proposals", help="Every n-th is Bayesian.")
    patience: int = knob(60, low=0, high=1000, unit="proposals", help="In vain; 0 = no search.")
    enough: float = knob(0.95, low=0.0, high=1.0, step=0.01, help="Stop once this much is met.")

    def init(self, ctx: Context) -> SkipSearch:
        inner, unit = max(0, ctx.target.model.layer_count - 2), self._unit(ctx)
        order = [*range(0, inner, 2), *range(1, inner, 2)]  # layers 1, 3, 5, ... first
        skipped = np.zeros(2 * inner)
        for place in range(int(2 * inner * self.ratio) // unit * unit):
            skipped[order[place // 2] + (place % 2) * inner] = 1
        return SkipSearch(skipped, start=len(ctx.tokens))

    def _unit(self, ctx: Context) -> int:
        """Sub-layers that are left out together: one, or both of a layer."""
        return 1 if ctx.target.model.mode == "fused" else 2

    def resume(self, ctx: Context, state: SkipSearch) -> SkipSearch:
        """Keep the set; score it again on the new text before anything may replace it."""
        return SkipSearch(state.skipped, start=len(ctx.tokens))

    def span(self, layer_count: int, skipped: np.ndarray) -> Span:
        """The sub-layers that run."""
        inner = layer_count - 2
        attention, mlp = np.flatnonzero(skipped[:inner]), np.flatnonzero(skipped[inner:])
        return Span.without(layer_count, (attention + 1).tolist(), (mlp + 1).tolist())

    def propose(
        self, ctx: Context, state: SkipSearch, budget: Budget
    ) -> tuple[DraftTree, SkipSearch]:
        """Draft a chain with the sub-layers that run, with siblings as leaves."""
        layers = ctx.target.model.layer_count
        if min(budget.depth, budget.nodes, budget.width) < 1 or layers < 3:
            return DraftTree.empty(ctx.device), state
        span, session = self.span(layers, state.skipped), ctx.target
        tokens, parent, laws, score, above = [], [], [], [], -1
        newest = torch.tensor(ctx.tokens[-1:], device=ctx.device)
        with session.scratch():
            for depth in range(1, budget.depth + 1):
                logits = session.forward(newest, span=span).logits[-1]
                session.commit([0])
                own = logits[: ctx.vocab_size].float().softmax(-1)
                wanted = next(n for least, n in _SIBLINGS if float(own.max()) > least)
                room = min(self.most_siblings, budget.width, budget.nodes - len(tokens))
                drawn = self._drawn(ctx, logits, own, min(wanted, room))
                tokens += drawn.tokens.tolist()
                laws += list(drawn.laws)
                parent += [above] * len(drawn.tokens)
                score += own[drawn.tokens].tolist()
                newest, above = drawn.tokens[:1], len(tokens) - len(drawn.tokens)
                sure = score[above] >= self.stop and len(tokens) < budget.nodes
                step = DraftStep(depth, drawn.laws[0], logits, newest[0])
                if not sure or depth == budget.depth or not budget.go(step):
                    break
        probs = None if ctx.sampling.greedy else torch.stack(laws)
        return DraftTree(
            torch.tensor(tokens, dtype=torch.long, device=ctx.device),
            tuple(parent),
            probs,
            torch.tensor(score, device=ctx.device),
            with_replacement=False,
        ), state

    def _drawn(self, ctx: Context, logits, own, count: int) -> siblings.Siblings:
        """Siblings of one place: the likeliest at temperature 0, else drawn without replacement."""
        if ctx.sampling.greedy:
            best = own.topk(min(count, len(own))).indices
            return siblings.Siblings(best, own.expand(len(best), -1))
        law = ctx.sampling.law(logits[: ctx.vocab_size])
        return siblings.without_replacement(law, ctx.uniform(len(law)), count)

    def _search(self, ctx: Context, state: SkipSearch, text: list[int]) -> None:
        """Score the set in use, or try another one and keep it if it predicts more."""
        state.rounds += 1
        enough = state.score is not None and state.score >= self.enough
        early = len(text) - state.start < self.window
        if early or enough or state.waited >= self.patience or state.rounds % self.every:
            return
        first = state.skipped, "first"
        proposal, source = first if state.score is None else self._proposal(ctx, state)
        matched = self.matchness(ctx, state, text, proposal)
        state.points.append(proposal)
        state.scores.append(matched)
        state.waited += 1
        if state.score is None or matched > state.score:
            state.skipped, state.score, state.waited = proposal, matched, 0
        inner = ctx.target.model.layer_count - 2
        for name, marks in (("skip", state.skipped), ("tried", proposal)):
            ctx.report(f"{name}_attention", (np.flatnonzero(marks[:inner]) + 1).tolist())
            ctx.report(f"{name}_mlp", (np.flatnonzero(marks[inner:]) + 1).tolist())
        ctx.report("matchness", matched)
        ctx.report("best", state.score)
        ctx.report("source", source)

    def _proposal(self, ctx: Context, state: SkipSearch) -> tuple[np.ndarray, str]:
        """A random set of the same size, or the most promising of many."""
        bayesian = len(state.scores) % self.bayes_every == 0
        unit = self._unit(ctx)
        count, size = int(state.skipped.sum()) // unit, len(state.skipped) // unit
        keys = ctx.uniform(CANDIDATES if bayesian else 1, size).cpu().numpy()
        sets = np.zeros_like(keys)
        np.put_along_axis(sets, np.argsort(keys, 1)[:, :count], 1.0, 1)
        sets = np.tile(sets, (1, unit))
        if not bayesian:
            return sets[0], "random"
        tried = np.stack(state.points), np.array(state.scores)
        return sets[int(upper_confidence(*tried, sets, KAPPA).argmax())], "bayesian"

    def matchness(self, ctx: Context, state: SkipSearch, text: list[int], skipped) -> float:
        """Share of the first generated tokens that the thinned model predicts, in one pass."""
        model = ctx.target.model
        if state.session is None:
            state.session = model.session()
            state.session.sync(text[: state.start - 1])
        end = min(len(text), state.start + self.window)
        rows = text[state.start - 1 : end - 1]
        logits = state.session.forward(rows, span=self.span(model.layer_count, skipped)).logits
        ctx.target.charge_for(state.session)
        wanted = torch.tensor(text[state.start : end], device=logits.device)
        return float((logits.argmax(-1) == wanted).double().mean())

    def update(self, ctx: Context, state: SkipSearch, feedback: Feedback) -> SkipSearch:
        """Try one more skip set if it is time; drafting itself stays a function of the state."""
        if ctx.target.model.layer_count > 2:
            self._search(ctx, state, [*feedback.tokens, *feedback.outcome.emitted])
        return state
