"""Small heads on the target's last hidden state guess the next tokens side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.decoding import Budget, Context, Feedback, Need
from workbench.core.inference import inference_mode
from workbench.core.method import Paper, knob, method
from workbench.core.template import Template, grown_template
from workbench.core.transfer import sent
from workbench.core.tree import DraftTree, shape_of
from workbench.models.attachments import load_attachment

HEADS = 3
# What the template assumes of a head nobody measured: chance of each rank, the same at each depth.
_UNMEASURED = ((0.3, 0.12, 0.07, 0.05, 0.04, 0.03, 0.02, 0.02),) * HEADS


class MedusaHeads(nn.Module):
    """One residual block a head; the target's own LM head turns its output into logits.

    Shapes: hidden ``[... d]`` in, ``[heads ... d]`` out. Weights start at zero, as in the paper's
    code; so does the bias here, so that an untrained head repeats the LM head.
    """

    def __init__(self, width: int, heads: int = HEADS):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(heads))
        for block in self.blocks:
            for weight in block.parameters():
                nn.init.zeros_(weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.stack([hidden + F.silu(block(hidden)) for block in self.blocks])


@dataclass(frozen=True)
class MedusaState:
    """The heads on the target's device, and the measured chance of each rank at each depth."""

    heads: MedusaHeads
    ranks: tuple[tuple[float, ...], ...]


@lru_cache(maxsize=64)
def _places(
    template: Template, device: torch.device
) -> tuple[tuple[int, ...], torch.Tensor, torch.Tensor]:
    """Parents of a template's nodes; head and rank of each, on the device before they are asked."""
    parent = tuple(above for above, _ in template)
    level = [depth - 1 for depth in shape_of(parent).depth]
    return parent, sent(level, device), sent([rank for _, rank in template], device)


@method(
    "drafter",
    title="Medusa",
    paper=Paper(
        "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads",
        2024,
        "2401.10774",
        "section 2.1",
    ),
)
class Medusa:
    """Each head ranks one further token from the same hidden state; a fixed tree combines them.

    *Idea*: head i reads the hidden state that predicted the root and guesses the token i+1 places
    after it. Guesses of different heads do not know of each other, so the tree crosses their ranks.

    *Deviations*: three heads, which share the target's LM head (own ones would be half of a 10 M
    model) and whose bias starts at zero too; the tree is grown for the round's budget from the
    accuracies in the head's card instead of a fixed list of 63 paths; verification is whichever
    rule is picked (the paper's typical acceptance is ``typical``, which is not lossless).

    *Shapes*: hidden ``[d]`` -> logits ``[heads v]``. *Cost*: one small matrix a head, one top-k.

    *Raises*: Mismatch for heads of another target.
    """

    needs = frozenset({Need.TARGET, Need.HIDDEN})

    heads: str = knob(
        "zoo", help="Trained heads: zoo (embedded), untrained, or the folder of your own."
    )
    ranks: int = knob(8, low=1, high=16, unit="tokens", help="Guesses of each head in use.")

    def init(self, ctx: Context) -> MedusaState:
        model = ctx.target.model
        attachment = load_attachment(self.heads, "medusa", model)
        measured = attachment.card.get("rank_accuracy", _UNMEASURED)
        module = MedusaHeads(model.network.config.hidden_size, len(measured))
        ranks = tuple(tuple(row[: self.ranks]) for row in measured)
        return MedusaState(attachment.fill(module, model.parts.embed.weight), ranks)

    def propose(
        self, ctx: Context, state: MedusaState, budget: Budget
    ) -> tuple[DraftTree, MedusaState]:
        """Top ranks of each head, laid out by the template; nothing is read back to the host."""
        width = min(budget.width, ctx.vocab_size)
        template = grown_template(state.ranks, budget.nodes, budget.depth, width)
        if not template or len(ctx.tokens) < 2:
            return DraftTree.empty(ctx.device), state
        parent, level, rank = _places(template, ctx.device)
        with inference_mode():
            guesses = state.heads(ctx.hidden["final"][-1])
            logits = ctx.target.model.logits(guesses)[:, : ctx.vocab_size]
            laws = logits.float().softmax(-1)
            best = laws.topk(max(rank for _, rank in template) + 1, -1)
            tokens, score = best.indices[level, rank], best.values[level, rank]
        return DraftTree(tokens.clone(), parent, score=score.clone()), state

    def update(self, ctx: Context, state: MedusaState, feedback: Feedback) -> MedusaState:
        return state
