"""A smaller model of the same tokenizer drafts; the classic speculative decoding."""

from __future__ import annotations

import torch

from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need
from workbench.core.method import Paper, knob, method
from workbench.core.sampling import draw, fit_vocabulary
from workbench.core.tree import DraftTree
from workbench.models.native.laws import Chain
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
        if (tree := self._path(ctx, session, tokens, budget)) is not None:
            return tree, None
        seen = session.sync(tokens, capture=capture)
        drafted, laws, scores = [], [], []
        widths = self._widths(budget, min(known, ctx.vocab_size))
        for depth, width in enumerate(widths, 1):
            logits = seen.logits[-1]
            law = ctx.sampling.law(fit_vocabulary(logits, ctx.vocab_size))
            level, level_scores = self._level(ctx, logits, law, width)
            laws.extend([law] * width)
            scores.append(level_scores)
            drafted.append(level)
            hidden = seen.hidden["final"][-1] if budget.hidden else None
            step = DraftStep(depth, law, logits, level[0], hidden)
            if depth == len(widths) or not budget.go(step):
                break
            seen = session.forward(level[:1], capture=capture)
            session.commit([0])
        greedy = ctx.sampling.greedy
        tree = DraftTree(
            ctx.here(torch.cat(drafted)),
            _parents(widths[:depth]),
            None if greedy else ctx.here(torch.stack(laws)),
            ctx.here(torch.cat(scores)),
        )
        return tree, None

    def _widths(self, budget: Budget, known: int) -> list[int]:
        """Tokens of each level, until depth or nodes are used up."""
        widths: list[int] = []
        left = budget.nodes
        while left and len(widths) < budget.depth:
            widths.append(min(self.siblings, budget.width, left, known))
            left -= widths[-1]
        return widths

    def _path(self, ctx: Context, session: Session, tokens, budget: Budget) -> DraftTree | None:
        """The whole path in one call, where nobody has to be asked or shown anything in between."""
        asks = not budget.steady or budget.hidden
        many = len(tokens) - len(session) > _NEW_TOKENS  # a prompt is fed in pieces
        alike = session.model.vocab_size == ctx.vocab_size
        widths = self._widths(budget, ctx.vocab_size)
        if asks or many or not alike or not session.runs_on(ctx.sampling, len(widths)):
            return None
        firsts = [sum(widths[:level]) for level in range(len(widths))]
        count = sum(widths)
        uniforms = None if ctx.sampling.greedy else ctx.uniform(count, device=session.device)
        along = [] if uniforms is None else uniforms[firsts].tolist()
        drawn = session.run_on(tokens, len(widths), ctx.sampling, along)
        if drawn is None:
            return None
        laws, scores = drawn.laws, drawn.chances
        tokens = torch.tensor(drawn.tokens)
        if max(widths) > 1:
            laws = laws[[level for level, width in enumerate(widths) for _ in range(width)]]
            tokens = _beside(drawn, laws, widths, firsts, uniforms)
            scores = laws.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        probs = None if ctx.sampling.greedy else ctx.here(laws)
        return DraftTree(ctx.here(tokens), _parents(widths), probs, ctx.here(scores))

    def _level(self, ctx: Context, logits, law, width: int):
        """Tokens ``[width]`` of one level and the draft's own probability of each."""
        if ctx.sampling.greedy:
            if width == 1:
                level = logits[: ctx.vocab_size].argmax(-1, keepdim=True)
            else:
                level = logits[: ctx.vocab_size].topk(width).indices
            return level, logits.float().softmax(-1)[level]
        uniforms = ctx.uniform(width, device=law.device)
        level = draw(law.expand(width, -1), uniforms)
        return level, law[level]

    def update(self, ctx: Context, state: None, feedback: Feedback) -> None:
        return None


def _parents(widths: list[int]) -> tuple[int, ...]:
    """Each level hangs below the first token of the one before."""
    parent: list[int] = []
    above = -1
    for width in widths:
        parent.extend([above] * width)
        above = len(parent) - width
    return tuple(parent)


def _beside(drawn: Chain, laws, widths: list[int], firsts: list[int], uniforms) -> torch.Tensor:
    """The path's tokens with the siblings of each, drawn from its law or the next likeliest."""
    if uniforms is not None:
        tokens = draw(laws, uniforms)
        tokens[firsts] = torch.tensor(drawn.tokens)
        return tokens
    tops = drawn.laws.topk(max(widths)).indices.tolist()
    levels = zip(drawn.tokens, tops, widths, strict=True)
    every = [([first, *(t for t in top if t != first)][:width]) for first, top, width in levels]
    return torch.tensor([token for level in every for token in level])
