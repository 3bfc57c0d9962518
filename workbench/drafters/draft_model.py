"""A smaller model of the same tokenizer drafts; the classic speculative decoding."""

from __future__ import annotations

import torch

from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.sampling import draw, fit_vocabulary
from workbench.core.tree import DraftTree
from workbench.models.session import Session

_NEW_TOKENS = 64


@method(
    "drafter",
    title="Draft model",
    paper=Paper("Fast Inference from Transformers via Speculative Decoding", 2023, "2211.17192"),
)
class DraftModel:
    """Draft with a smaller model, one token at a time along a main path.

    *Idea*: most tokens are easy; a model of a tenth of the size agrees on them and costs a tenth.

    *Paper*: Leviathan et al. 2023 (arXiv 2211.17192, algorithm 1); Chen et al. 2023
    (arXiv 2302.01318). Siblings as in SpecInfer (arXiv 2305.09781): drawn independently.

    *Deviations*: with ``siblings`` > 1 every node of the main path gets further children that are
    not expanded themselves, so one draft forward a level suffices whatever the width.

    *Cost*: ``depth`` forwards of the draft; its cache is kept in step by common prefix.
    """

    needs = frozenset({Need.DRAFT})

    siblings: int = knob(
        1, low=1, high=16, unit="tokens", help="Tokens drafted at each step; the first goes on."
    )

    def init(self, ctx: Context) -> None:
        return None

    def propose(self, ctx: Context, state: None, budget: Budget) -> tuple[DraftTree, None]:
        """Draft until the budget or the policy ends it. Greedy: the top tokens are *chosen*."""
        if min(budget.depth, budget.nodes, budget.width) < 1:
            return DraftTree.empty(ctx.device), None
        session, known = ctx.draft, ctx.draft.model.vocab_size
        # A padded id that the draft has no embedding for is read as its last one: a worse guess.
        tokens = [min(t, known - 1) for t in ctx.tokens] if known < ctx.vocab_size else ctx.tokens
        session.crop(min(len(session), len(tokens) - 1))
        capture = ("final",) if budget.hidden else ()
        if (chain := self._chain(ctx, session, tokens, budget)) is not None:
            return chain, None
        seen = session.sync(tokens, capture=capture)
        drafted, parent, laws, scores = [], [], [], []
        above = -1
        for depth in range(1, budget.depth + 1):
            logits = seen.logits[-1]
            known = min(logits.shape[-1], ctx.vocab_size)
            width = min(self.siblings, budget.width, budget.nodes - len(parent), known)
            law = ctx.sampling.law(fit_vocabulary(logits, ctx.vocab_size))
            level, level_scores = self._level(ctx, logits, law, width)
            laws.extend([law] * width)
            scores.append(level_scores)
            drafted.append(level)
            parent.extend([above] * width)
            above = len(parent) - width
            room = len(parent) < budget.nodes and depth < budget.depth
            hidden = seen.hidden["final"][-1] if budget.hidden else None
            if not room or not budget.go(DraftStep(depth, law, logits, level[0], hidden)):
                break
            seen = session.forward(level[:1], capture=capture)
            session.commit([0])
        greedy = ctx.sampling.greedy
        tree = DraftTree(
            torch.cat(drafted).to(ctx.device),
            tuple(parent),
            None if greedy else torch.stack(laws).to(ctx.device),
            torch.cat(scores).to(ctx.device),
        )
        return tree, None

    def _chain(self, ctx: Context, session: Session, tokens, budget: Budget) -> DraftTree | None:
        """The whole path in one call, where nobody has to be asked or shown anything in between."""
        asks = not budget.steady or budget.hidden or self.siblings > 1
        many = len(tokens) - len(session) > _NEW_TOKENS  # a prompt is fed in pieces
        alike = session.model.vocab_size == ctx.vocab_size
        steps, greedy = min(budget.depth, budget.nodes), ctx.sampling.greedy
        if asks or many or not alike or not session.runs_on(ctx.sampling, steps):
            return None
        uniforms = () if greedy else ctx.uniform(steps).tolist()
        drawn = session.run_on(tokens, steps, ctx.sampling, uniforms)
        if drawn is None:
            return None
        tokens = torch.tensor(drawn.tokens, device=ctx.device)
        laws = None if greedy else drawn.laws.to(ctx.device)
        return DraftTree.chain(tokens, laws, drawn.chances.to(ctx.device))

    def _level(self, ctx: Context, logits, law, width: int):
        """Tokens ``[width]`` of one level and the draft's own probability of each."""
        if ctx.sampling.greedy:
            if width == 1:
                level = logits[: ctx.vocab_size].argmax(-1, keepdim=True)
            else:
                level = logits[: ctx.vocab_size].topk(width).indices
            return level, logits.float().softmax(-1)[level]
        uniforms = ctx.uniform(width).to(law.device)
        level = draw(law.expand(width, -1), uniforms)
        return level, law[level]

    def update(self, ctx: Context, state: None, feedback: Feedback) -> None:
        return None
