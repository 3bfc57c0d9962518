"""The target's first layers and a small adapter draft; verification resumes where they stopped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from workbench.core.decoding import Budget, Context, DraftStep, Feedback, Need
from workbench.core.errors import Mismatch
from workbench.core.inference import inference_mode
from workbench.core.method import Paper, knob, method
from workbench.core.sampling import draw
from workbench.core.tree import DraftTree
from workbench.models.attachments import load_attachment
from workbench.models.blocks import Block, BlockShape, BlockStore


class KangarooAdapter(nn.Module):
    """One attention layer without an MLP, then a norm; the target's LM head reads the result.

    Shapes: stream after the exit layer ``[b t d]`` -> normed ``[b t d]``.
    """

    def __init__(self, config):
        super().__init__()
        self.attention = Block(BlockShape.of(config, inner=0))
        self.norm = nn.RMSNorm(self.attention.shape.width, eps=self.attention.shape.eps)
        nn.init.zeros_(self.attention.o.weight)  # untrained = a plain early exit

    def forward(self, stream: torch.Tensor, store: BlockStore | None = None) -> torch.Tensor:
        return self.norm(self.attention(stream, store=store))


@dataclass
class KangarooState:
    """The adapter, and its keys and values of the committed text."""

    adapter: KangarooAdapter
    store: BlockStore


@method(
    "drafter",
    title="Kangaroo",
    paper=Paper(
        "Kangaroo: Lossless Self-Speculative Decoding via Double Early Exiting", 2024, "2404.18911"
    ),
)
class Kangaroo:
    """Draft with an early exit, stop when unsure, and let the deep layers finish what was begun.

    *Idea*: the shallow layers' work on drafted tokens is not thrown away: their keys, values and
    states wait in the session, and verification starts at the exit layer. The second exit is in
    time: after a token whose probability is below ``eta`` nothing more is drafted; that token
    itself is still verified.

    *Deviations*: at T > 0 tokens are drawn from the adapter's law (the paper's code is greedy); the
    confidence is always that of the drafted token at temperature 1. The adapter re-reads accepted
    rows instead of keeping drafted ones, which removes the paper's catch-up after full acceptance.
    ``exit_layer`` beyond the last layer means the last one.

    *Shapes*: stream ``[1 d]`` a token. *Cost*: ``exit_layer`` layers, the adapter and the LM head a
    token; the deep layers once a round.

    *Raises*: Mismatch for an adapter of another target or another exit layer; ModelError for a
    family whose layers cannot be run apart.
    """

    needs = frozenset({Need.TARGET, Need.HIDDEN})

    heads: str = knob(
        "zoo", help="Trained adapter: zoo (embedded), untrained, or the folder of your own."
    )
    exit_layer: int = knob(2, low=1, high=64, unit="layers", help="Layers that draft.")
    eta: float = knob(
        0.4, low=0.0, high=1.01, step=0.01, help="Stop after a token that is less likely than this."
    )

    def _depth(self, layer_count: int) -> int:
        return min(self.exit_layer, layer_count)

    def taps(self, layer_count: int) -> tuple[str, ...]:
        """The stream after the exit layer."""
        return (str(self._depth(layer_count)),)

    def init(self, ctx: Context) -> KangarooState:
        model = ctx.target.model
        attachment = load_attachment(self.heads, "kangaroo", model)
        trained_for = attachment.card.get("exit_layer", self._depth(model.layer_count))
        if trained_for != self._depth(model.layer_count):
            raise Mismatch(
                f"exit_layer={self.exit_layer}: this adapter was trained behind layer"
                f" {trained_for}; choose {trained_for}, or heads='untrained'"
            )
        adapter = KangarooAdapter(model.network.config)
        if not attachment.trained and hasattr(model.parts.norm, "weight"):
            adapter.norm.weight.data.copy_(model.anatomy.norm.weight)
        return KangarooState(attachment.fill(adapter, model.parts.embed.weight), BlockStore())

    @inference_mode()
    def propose(
        self, ctx: Context, state: KangarooState, budget: Budget
    ) -> tuple[DraftTree, KangarooState]:
        """Climb to the exit with the root, then with each drafted token, until unsure."""
        session, most = ctx.target, min(budget.depth, budget.nodes)
        session.crop(len(session))  # rows prepared for a draft that was never verified
        if most < 1 or budget.width < 1:
            return DraftTree.empty(ctx.device), state
        text = self._follow(ctx, state)
        tokens: list[torch.Tensor] = []
        laws: list[torch.Tensor] = []
        confidence: list[float] = []
        stream = session.ascend(ctx.tokens[-1:], self._depth(session.model.layer_count))
        while True:
            logits = session.model.logits(state.adapter(stream[None], state.store)[0, -1])
            token, law, sure = self._drafted(ctx, logits[: ctx.vocab_size])
            tokens.append(token)
            laws.append(law)
            confidence.append(float(sure))
            stream = session.ascend(token[None], self._depth(session.model.layer_count))
            if len(tokens) == most or confidence[-1] < self.eta:
                break
            if not budget.go(DraftStep(len(tokens), law, logits, token)):
                break
        state.store.crop(text)
        ctx.report("confidence", confidence)
        ctx.report("eta", self.eta)
        drafted = None if ctx.sampling.greedy else torch.stack(laws)
        score = torch.tensor(confidence, device=ctx.device)
        return DraftTree.chain(torch.stack(tokens).clone(), drafted, score), state

    def _drafted(self, ctx: Context, logits: torch.Tensor):
        """The next token, the law it is drawn from, and its probability at temperature 1."""
        law = ctx.sampling.law(logits)
        token = logits.argmax() if ctx.sampling.greedy else draw(law, ctx.uniform(1)[0])
        return token, law, logits.float().softmax(-1)[token]

    def _follow(self, ctx: Context, state: KangarooState) -> int:
        """Let the adapter read every committed row that it has not read."""
        (tap,) = self.taps(ctx.target.model.layer_count)
        known = len(state.store)
        if len(ctx.tokens) - 1 > known:
            state.adapter(ctx.hidden[tap][known:][None], state.store)
        return len(state.store)

    def update(self, ctx: Context, state: KangarooState, feedback: Feedback) -> KangarooState:
        return state
