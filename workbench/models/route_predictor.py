"""Guess which experts a token will need in every layer before the model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.nn import functional as F

from workbench.core.errors import BadInput
from workbench.core.expert_cache import Plan
from workbench.core.inference import inference_mode
from workbench.core.routing import RoutingRecord

KINDS = ("frequency", "token", "context")


class _Head(nn.Module):
    """Token ids ``[t]`` to scores ``[t layers*experts]``; with ``context`` one causal layer.

    The embedding is the model's own, frozen: what the router reads begins there.
    """

    def __init__(self, embedding: torch.Tensor, width: int, outputs: int, context: bool):
        super().__init__()
        self.embedding: torch.Tensor
        self.register_buffer("embedding", embedding.detach().float().clone())
        self.inner = nn.Linear(embedding.shape[1], width)
        self.mixer = None
        if context:
            self.mixer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.outer = nn.Linear(width, outputs)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = F.embedding(tokens, self.embedding)
        x = F.layer_norm(x, x.shape[-1:])
        x = self.inner(x)
        if self.mixer is not None:
            blocked = torch.ones(len(tokens), len(tokens), dtype=torch.bool).triu(1)
            x = self.mixer(x[None], src_mask=blocked)[0]
        return self.outer(x)


@dataclass(frozen=True, eq=False)
class RoutePredictor:
    """Predicts by how often experts are used, by the token, or by the text so far.

    Args:
        kind: ``frequency`` ignores the token; ``token`` reads it; ``context`` reads what came
            before as well.
        layers: numbers of the layers, in order.
        frequency: how many of the tokens went to each expert, ``[layers e]``.
    """

    kind: str
    layers: tuple[int, ...]
    frequency: Float[torch.Tensor, "l e"]
    head: Any = None

    @torch.no_grad()
    def scores(self, tokens: Sequence[int]) -> Float[torch.Tensor, "t l e"]:
        """Higher = likelier, for every token, layer and expert."""
        if self.head is None:
            return self.frequency.expand(len(tokens), *self.frequency.shape)
        with inference_mode(False):
            flat = self.head(torch.tensor(list(tokens)))
        return flat.view(len(tokens), *self.frequency.shape)

    def plan(self, tokens: Sequence[int], count: int) -> Plan:
        """The ``count`` likeliest experts of every token, by layer."""
        best = self.scores(tokens).topk(min(count, self.frequency.shape[1]), dim=-1).indices
        return {number: best[:, at].tolist() for at, number in enumerate(self.layers)}

    def recall(self, record: RoutingRecord) -> dict[int, float]:
        """Layer -> share of the experts really used that are among as many predicted ones."""
        found, scores = {}, self.scores(record.tokens)
        for at, (number, layer) in enumerate(record.layers.items()):
            used, rank = layer.dense != 0, scores[:, at].argsort(-1, descending=True).argsort(-1)
            within = rank < used.sum(-1, keepdim=True)
            found[number] = float((used & within).sum() / used.sum())
        return found


def fit_predictor(
    embedding: Float[torch.Tensor, "v d"],
    records: Sequence[RoutingRecord],
    kind: str = "token",
    *,
    steps: int = 300,
    width: int = 128,
    rate: float = 3e-3,
    seed: int = 0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> RoutePredictor:
    """Fit to recorded routes by multi-label cross-entropy, one record a step.

    Args:
        embedding: the model's, for the tokens' first look.
        records: with their token ids.

    Raises:
        BadInput: an unknown kind, no records, or records without ids.
    """
    if kind not in KINDS:
        raise BadInput(f"predictor={kind!r}: choose one of {list(KINDS)}")
    if not records or not all(record.tokens for record in records):
        raise BadInput("records: needs one or more, each with its token ids")
    layers = tuple(records[0].layers)
    used = [
        torch.stack([(r.layers[n].dense != 0).float() for n in layers], 1) for r in records
    ]  # [t l e]
    predictor = RoutePredictor(kind, layers, torch.cat(used).sum(0))
    if kind == "frequency":
        return predictor
    with inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _Head(embedding.cpu(), width, used[0][0].numel(), kind == "context")
        optimiser = torch.optim.Adam(head.parameters(), rate)
        for step in range(steps):
            at = step % len(records)
            guess = head(torch.tensor(records[at].tokens))
            loss = F.binary_cross_entropy_with_logits(guess, used[at].flatten(1).clone())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            progress((step + 1) / steps)
    return RoutePredictor(kind, layers, predictor.frequency, head.eval())
