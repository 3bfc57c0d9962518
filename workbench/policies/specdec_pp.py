"""A trained head estimates which drafted tokens survive; stop when one probably will not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.decoding import Budget, Context, DraftStep, Need, Outcome
from workbench.core.errors import Mismatch
from workbench.core.inference import inference_mode
from workbench.core.method import Paper, knob, method
from workbench.core.tree import DraftTree
from workbench.models.attachments import load_attachment

LAYERS = 3


class AcceptanceHead(nn.Module):
    """One residual block applied ``layers`` times, then two logits: rejected, accepted.

    Shapes: draft hidden state after reading a token ``[... d]`` -> logits ``[... 2]``; d*d + 3d + 2
    parameters whatever the number of layers, since they share their weights.
    """

    def __init__(self, width: int, layers: int = LAYERS):
        super().__init__()
        self.layers = layers
        self.block = nn.Linear(width, width)
        self.out = nn.Linear(width, 2)
        nn.init.zeros_(self.block.weight)
        nn.init.zeros_(self.block.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for _ in range(self.layers):
            hidden = hidden + F.silu(self.block(hidden))
        return self.out(hidden)

    def accepted(self, hidden: torch.Tensor) -> torch.Tensor:
        """Estimated chance that the token just read is accepted, ``[...]``."""
        return self(hidden).float().softmax(-1)[..., 1]


@dataclass(frozen=True)
class SpecDecState:
    """The head on the draft's device."""

    head: AcceptanceHead


@method(
    "policy",
    title="SpecDec++",
    paper=Paper(
        "SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths",
        2024,
        "2405.19715",
    ),
)
class SpecDecPP:
    """Stop once the chance that any drafted token is refused exceeds a threshold.

    *Idea*: going on pays as long as everything so far probably survives, so the right quantity is
    the running product of acceptance chances, not the last token's confidence; the optimal policy
    of the paper's cost model is a threshold on it.

    *Deviations*: the estimate of a token needs the draft to have read it, so the product covers all
    but the newest token (as in the authors' code). Trees are judged by their main path. The head is
    trained at temperature 1 without filters; elsewhere its estimate is off, never the output. The
    embedded head ranks tokens a little worse than the draft's own probability does (both areas are
    in its card); ``confidence`` stops by that probability.

    *Cost*: one small product a drafted token. *Raises*: Mismatch for a head of other models.
    """

    needs = frozenset({Need.DRAFT, Need.TARGET})
    wants_hidden = True

    heads: str = knob(
        "zoo", help="Trained head: zoo (embedded), untrained, or the folder of your own."
    )
    threshold: float = knob(
        0.7, low=0.0, high=1.0, step=0.05, help="Stop when a refusal is more likely than this."
    )
    least: int = knob(1, low=1, high=32, unit="tokens", help="Never shorter than this.")
    most: int = knob(10, low=1, high=32, unit="tokens", help="Never deeper than this.")
    nodes: int = knob(16, low=1, high=512, unit="nodes", help="Draft tokens scored in one pass.")
    width: int = knob(8, low=1, high=64, unit="tokens", help="Most siblings under one node.")

    def init(self, ctx: Context) -> SpecDecState:
        draft = ctx.draft.model
        attachment = load_attachment(self.heads, "specdec_pp", ctx.target.model)
        if attachment.trained and attachment.card.get("draft") != draft.fingerprint:
            raise Mismatch(
                f"heads={self.heads!r} was trained on the draft with fingerprint"
                f" {attachment.card.get('draft')}, but {draft.name!r} has {draft.fingerprint};"
                " choose that draft, or heads='untrained'"
            )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            head = AcceptanceHead(draft.network.config.get_text_config().hidden_size)
        return SpecDecState(attachment.fill(head, draft.network.get_input_embeddings().weight))

    def budget(self, state: SpecDecState) -> Budget:
        return Budget(self.most, max(self.nodes, self.most), self.width)

    def go(self, state: SpecDecState, steps: Sequence[DraftStep]) -> bool:
        if len(steps) < self.least:
            return True
        if len(steps) >= self.most:
            return False
        return 1 - survival(state.head, steps)[-1] <= self.threshold

    def report(self, state: SpecDecState, steps: Sequence[DraftStep]) -> dict[str, Any]:
        """The falling product, for the round's record."""
        return {"survival": survival(state.head, steps), "threshold": self.threshold}

    def update(self, state: SpecDecState, tree: DraftTree, outcome: Outcome) -> SpecDecState:
        return state


def survival(head: AcceptanceHead, steps: Sequence[DraftStep]) -> list[float]:
    """After each step, the chance that all tokens read by then are accepted.

    A step's hidden state belongs to the token before it; that of the first step is committed.
    """
    read = [step.hidden for step in steps[1:] if step.hidden is not None]
    if len(read) < len(steps) - 1:
        raise Mismatch(
            "policy='specdec_pp' needs the draft model's hidden states, which this drafter does not"
            " give; choose the drafter draft_model, or the policy confidence"
        )
    if not read:
        return [1.0] * len(steps)
    with inference_mode():
        chances = head.accepted(torch.stack(read))
    return [1.0, *chances.cumprod(0).tolist()]
