"""Train the draft model while decoding, on the places where the target corrected it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.core.decoding import Budget, Context, Feedback, Need, resumed
from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, make_method, method
from workbench.core.tree import DraftTree
from workbench.models.learner import Learner, Lesson
from workbench.models.session import Session

CONTEXT_TOKENS = 256  # read before the first place of a lesson


@dataclass
class OnlineState:
    """The trained copy and its session, the drafter's own state, and what is still to be learnt."""

    inner: Any
    learner: Learner
    session: Session
    earlier: list[Lesson] = field(default_factory=list)  # of texts before this one
    text: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # in ``text``
    logits: list[torch.Tensor] = field(default_factory=list)  # the target's, at those places
    corrected: bool = False  # whether the last round ended in a correction
    taught: int = 0  # places trained on so far

    @property
    def waiting(self) -> int:
        """Places that the next step will train on."""
        return len(self.places) + sum(len(lesson.places) for lesson in self.earlier)

    def lessons(self) -> list[Lesson]:
        """All that waits; a text is cut before what its first place can hardly depend on."""
        if not self.places:
            return list(self.earlier)
        start = max(0, self.places[0] - CONTEXT_TOKENS)
        text = self.text[start : self.places[-1] + 1]
        places = [place - start for place in self.places]
        return [*self.earlier, Lesson(text, places, torch.stack(self.logits))]


@method(
    "drafter",
    title="Online",
    paper=Paper("Online Speculative Decoding", 2023, "2310.07177"),
)
class Online:
    """Draft with a copy of the draft model that learns from each correction.

    *Idea*: verification computes the target's law at every place where the draft went wrong, and
    throws it away. Kept, it is training data from exactly the texts that are being decoded.

    *Paper*: Liu et al. 2023 (arXiv 2310.07177): soft cross-entropy to the target's law at the
    corrected places, one optimiser step whenever enough have come together.

    *Deviations*: a step follows a number of places, not of requests, and may come inside a text:
    the copy's cache is emptied then, so that no key of older weights is read. The target's logits
    are kept from verification instead of being computed again. ``wrong`` trains the place whose
    prediction was corrected; the published code trains the place after it (``after``). Both laws
    are taken at temperature 1. Every text is read with the 256 tokens before its first place. The
    copy has no dropout. A step that raises its own loss is taken back, which the paper has not.

    *Cost*: that of the inner drafter, and one training step on at most ``every`` places and the
    text around them: it is inside the round's drafting time, because on one device nothing is idle.
    """

    inner: Any = knob("draft_model", family="drafter", help="A drafter with a draft model.")
    rate: float = knob(
        3e-4, low=0.0, high=0.1, step=1e-4, help="Learning rate of AdamW; 0 freezes the draft."
    )
    every: int = knob(
        128, low=1, high=512, unit="places", help="A training step when so many are waiting."
    )
    positions: str = knob(
        "wrong",
        choices=("wrong", "all", "after"),
        help="Train where the draft was corrected, everywhere, or one place after (as published).",
    )

    def check_knobs(self) -> None:
        needs = self._drafter.needs
        if Need.DRAFT not in needs or Need.LEARNER in needs:
            raise BadKnob(
                f"online.inner={self._drafter.name!r}: has no draft model to train; choose"
                " draft_model, draft_tree or a fusion with one"
            )

    @property
    def _drafter(self) -> Any:
        return make_method("drafter", self.inner)

    @property
    def needs(self) -> frozenset[Need]:
        """What the inner drafter needs, and a copy of its draft model."""
        return self._drafter.needs | {Need.LEARNER}

    @property
    def corpus(self) -> tuple[str, int] | None:
        """The corpus of the inner drafter, where it has one."""
        return getattr(self._drafter, "corpus", None)

    def taps(self, layer_count: int) -> tuple[str, ...]:
        """The hidden states that the inner drafter reads."""
        taps = getattr(self._drafter, "taps", None)
        return taps(layer_count) if taps else ("final",)

    def init(self, ctx: Context) -> OnlineState:
        learner = ctx.learner
        session = learner.model.session()
        return OnlineState(self._drafter.init(_with(ctx, session)), learner, session)

    def resume(self, ctx: Context, state: OnlineState) -> OnlineState:
        """Go on with the weights learnt so far; what waits of the last text waits on."""
        if state.learner.source is not ctx.draft.model:
            return self.init(ctx)
        session = state.learner.model.session()
        inner = resumed(self._drafter, _with(ctx, session), state.inner)
        return OnlineState(inner, state.learner, session, state.lessons(), taught=state.taught)

    def propose(
        self, ctx: Context, state: OnlineState, budget: Budget
    ) -> tuple[DraftTree, OnlineState]:
        """The inner drafter's proposal, drawn from the copy."""
        tree, state.inner = self._drafter.propose(_with(ctx, state.session), state.inner, budget)
        ctx.draft.charge_for(state.session)
        return tree, state

    def update(self, ctx: Context, state: OnlineState, feedback: Feedback) -> OnlineState:
        """Note what the target knew better, and train when enough of it is waiting."""
        inner, loss = _with(ctx, state.session), None
        state.inner = self._drafter.update(inner, state.inner, feedback)
        if self.rate > 0:
            self._note(state, feedback)
            if state.waiting >= self.every:
                loss = self._study(ctx, state)
        ctx.draft.charge_for(state.session)
        known = {"updates": state.learner.updates, "taught": state.taught, "loss": loss}
        ctx.report("online", {**known, "waiting": state.waiting})
        return state

    def _note(self, state: OnlineState, feedback: Feedback) -> None:
        tree, path = feedback.tree, feedback.outcome.path
        root, last = len(feedback.tokens) - 1, path[-1] if path else -1
        refused = last in tree.parent  # it had children, and none was taken
        rows = [node + 1 for node in (-1, *path)]
        chosen = {"all": range(len(rows)), "wrong": [len(path)] * refused}
        chosen["after"] = [0] * state.corrected
        state.corrected = refused
        state.text = [*feedback.tokens, *tree.tokens[list(path)].tolist()]
        for step in chosen[self.positions]:
            state.places.append(root + step)
            state.logits.append(feedback.logits[rows[step]].float().clone())

    def _study(self, ctx: Context, state: OnlineState) -> list[float]:
        """One training step; the loss before and after it."""
        device = state.session.device
        lessons = [
            dataclasses.replace(one, logits=ctx.crossings.carried(one.logits, device))
            for one in state.lessons()
        ]
        count, study = state.waiting, state.learner.study(lessons, self.rate)
        state.earlier, state.places, state.logits = [], [], []
        if study.kept:
            state.taught += count
            state.session.crop(0)  # its keys are those of the weights before
        else:
            ctx.say(
                f"A training step on {count} places was taken back: the loss went from"
                f" {study.before:.2f} to {study.after:.2f} nats. Further steps are half as long;"
                " a smaller rate avoids this."
            )
        return [study.before, study.after]


def _with(ctx: Context, session: Session) -> Context:
    """The context as the inner drafter sees it: the copy is its draft model."""
    return dataclasses.replace(ctx, provided={**ctx.provided, Need.DRAFT: session})
