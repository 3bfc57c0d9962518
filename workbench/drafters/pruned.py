"""The target drafts for itself with weights, neurons, heads or layers taken from a copy of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.core.decoding import Budget, Context, Feedback, Need, resumed
from workbench.core.errors import BadInput, BadKnob
from workbench.core.masks import Pattern
from workbench.core.method import Paper, knob, make_method, method
from workbench.core.pruning import PATTERNS, Plan
from workbench.core.tree import DraftTree
from workbench.models.model import Model
from workbench.models.prune import Pruned as Cut
from workbench.models.prune import prune
from workbench.models.session import Session
from workbench.models.slicing import sliced
from workbench.models.units import expanded

BEST = "best"
MOST_TOKENS = 512  # of the prompt that are read for calibration


@dataclass
class PrunedState:
    """The inner drafter's state, and the session of the pruned copy."""

    inner: Any
    session: Session
    source: Model
    density: float


@method(
    "drafter",
    title="Pruned copy of the target",
    paper=Paper(
        "Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative Decoding",
        2023,
        "2309.08168",
    ),
)
class PrunedCopy:
    """Draft with a pruned copy of the target, verify with the whole one.

    *Idea*: any mask is a drafter that needs no training and shares the target's tokenizer. How much
    of it is accepted says what the mask did, token by token, and the text stays the target's own.

    *Paper*: Zhang et al. 2023 (arXiv 2309.08168) skip layers; here any registered criterion may
    take anything out, as in *Self-Distilled Sparse Drafters* (arXiv 2504.08838) but
    without distillation.

    *Deviations*: the copy has a cache of its own, because keys above the first changed weight are
    not the target's. Calibration reads the prompt, so the copy fits the text that is continued; a
    saved mask comes with its own choice. ``best`` compares single weights within their row whatever
    the pruner (papers on magnitude, SparseGPT and RIA compare within a matrix or a block of its
    columns: ``layer``). Single zeros are computed like any other number: only parts that are cut
    out (``cut``) make a draft token cheaper.

    *Cost*: a copy of the weights, made when a run begins; a draft token costs what is left of a
    pass where parts are cut out, and a whole pass otherwise.
    """

    inner: Any = knob("draft_model", family="drafter", help="How the copy drafts.")
    pruner: Any = knob("layers", family="pruner", help="What is taken out.")
    ratio: float = knob(0.25, low=0.0, high=0.95, step=0.05, help="Share that is taken out.")
    pattern: str = knob(
        BEST,
        choices=(BEST, *PATTERNS["weights"]),
        help="Among what scores are compared; best = row for weights, else layer or global.",
    )
    cut: bool = knob(True, help="Cut whole parts out, where some are gone everywhere.")
    mask: str = knob("", help="A saved mask, used instead of the pruner.")

    def check_knobs(self) -> None:
        needs = self._drafter.needs
        if Need.DRAFT not in needs or Need.LEARNER in needs or Need.TWIN in needs:
            raise BadKnob(
                f"pruned.inner={self._drafter.name!r}: does not draft with a model of its own;"
                " choose draft_model or draft_tree"
            )
        if self.pattern != BEST and not self.mask:
            allowed = PATTERNS[self._pruner.acts_on]
            if self.pattern not in allowed:
                raise BadKnob(
                    f"pruned.pattern={self.pattern!r}: {self._pruner.name} removes"
                    f" {self._pruner.acts_on}; choose {' or '.join(allowed)}"
                )

    @property
    def _drafter(self) -> Any:
        return make_method("drafter", self.inner)

    @property
    def _pruner(self) -> Any:
        return make_method("pruner", self.pruner)

    @property
    def needs(self) -> frozenset[Need]:
        """What the inner drafter needs, with a copy of the target instead of a draft model."""
        return self._drafter.needs - {Need.DRAFT} | {Need.TWIN, Need.TARGET}

    @property
    def corpus(self) -> tuple[str, int] | None:
        """The corpus of the inner drafter, where it has one."""
        return getattr(self._drafter, "corpus", None)

    def init(self, ctx: Context) -> PrunedState:
        model, density = self._copy(ctx)
        session = model.session()
        inner = self._drafter.init(_with(ctx, session))
        return PrunedState(inner, session, ctx.target.model, density)

    def resume(self, ctx: Context, state: PrunedState) -> PrunedState:
        """Keep the copy: it was calibrated on an earlier text of the stream."""
        if state.source is not ctx.target.model:
            return self.init(ctx)
        session = state.session.model.session()
        inner = resumed(self._drafter, _with(ctx, session), state.inner)
        return PrunedState(inner, session, state.source, state.density)

    def _copy(self, ctx: Context) -> tuple[Model, float]:
        """The changed copy, and the share of its block weights that is left."""
        text = tuple(ctx.tokens[-MOST_TOKENS:]) if self._pruner.hears and not self.mask else ()
        path = Path(self.mask).expanduser()
        saved = path.stat().st_mtime_ns if self.mask and path.is_file() else 0  # saved anew?
        key = (self._pruner, self.ratio, self.pattern, self.cut, self.mask, saved, text)
        return ctx.twin.changed(key, lambda twin: self._changed(twin, text))

    def _changed(self, twin: Model, text: tuple[int, ...]) -> tuple[Model, float]:
        made = self._saved(twin) if self.mask else self._pruned(twin, text)
        density = expanded(twin, made.masks).density
        if self.cut and made.masks.parts:
            try:
                return sliced(twin, made.masks, made.weights), density
            except BadInput:  # adapters, or nothing is gone everywhere: zeros in place
                pass
        made.apply(twin)
        return twin, density

    def _saved(self, twin: Model) -> Cut:
        path = Path(self.mask).expanduser()
        if not path.is_file():
            raise BadInput(f"pruned.mask={self.mask!r}: no such file; save a mask in the lab first")
        return Cut.from_bytes(path.read_bytes(), path.name).check(twin)

    def _pruned(self, twin: Model, text: tuple[int, ...]) -> Cut:
        usual = {"weights": "row", "layers": "global"}.get(self._pruner.acts_on, "layer")
        pattern = Pattern.parse(usual if self.pattern == BEST else self.pattern)
        rows = torch.tensor([list(text)]) if text else None
        return prune(twin, self._pruner, Plan(pattern, self.ratio), rows)

    def propose(
        self, ctx: Context, state: PrunedState, budget: Budget
    ) -> tuple[DraftTree, PrunedState]:
        """The inner drafter's proposal, drawn from the copy."""
        tree, state.inner = self._drafter.propose(_with(ctx, state.session), state.inner, budget)
        ctx.target.charge_for(state.session, partial=True)
        return tree, state

    def update(self, ctx: Context, state: PrunedState, feedback: Feedback) -> PrunedState:
        """Tell the inner drafter, and the record how much is left."""
        inner = _with(ctx, state.session)
        state.inner = self._drafter.update(inner, state.inner, feedback)
        ctx.target.charge_for(state.session, partial=True)
        ctx.report("density", state.density)
        return state


def _with(ctx: Context, session: Session) -> Context:
    """The context as the inner drafter sees it: the copy is its draft model."""
    return dataclasses.replace(ctx, provided={**ctx.provided, Need.DRAFT: session})
