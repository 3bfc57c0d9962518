"""Who goes to which expert: the record of a pass, and what a router is.

*Idea*: per layer the router's logits and a list of (token, expert, weight). That list says top-k,
top-p, expert choice and soft routing alike, so every picture and number is made from it alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from workbench.core.errors import BadInput, TraceError

SCHEMA = 1
_PARTS = {"logits": torch.float32, "token": torch.int64, "expert": torch.int64}
_PARTS["weight"] = torch.float32


class Routed(NamedTuple):
    """What a gate says: weights and indices ``[t k]``, a row's heaviest first.

    A row with fewer experts than the widest repeats its first one with weight 0: a choice that
    every kernel computes safely, and that touches no further expert.
    """

    weights: torch.Tensor
    indices: torch.Tensor


class Own(NamedTuple):
    """How the model was trained to route: ``k``, and whether the k weights are made to sum to 1."""

    k: int
    normalised: bool


@runtime_checkable
class Router(Protocol):
    """A pure rule from logits to experts; each token alone, so that decoding equals a full pass."""

    def route(self, logits: torch.Tensor, own: Own) -> Routed: ...

    def sums_to_one(self, own: Own) -> bool:
        """Whether the weights of a token sum to 1; else they are the raw probabilities."""
        ...

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        """The fewest and the most experts a token can have."""
        ...


def law(logits: Float[torch.Tensor, "t e"]) -> Float[torch.Tensor, "t e"]:
    """Probabilities of the experts, in float32 whatever the logits are."""
    return torch.softmax(logits, dtype=torch.float, dim=-1)


def heaviest(probs: Float[torch.Tensor, "t e"], k: int, normalised: bool) -> Routed:
    """The ``k`` likeliest experts, operation by operation as the model families compute them."""
    weights, indices = torch.topk(probs, k, dim=-1)
    if normalised:
        weights = weights / weights.sum(-1, keepdim=True)
    return Routed(weights, indices)


def crossing(probs: Float[torch.Tensor, "t e"], p: float) -> Bool[torch.Tensor, "t e"]:
    """The fewest experts that exceed ``p`` together, where each row's heaviest come first.

    The expert that crosses is among them, so no token is left without one; one with probability 0
    (a banned one) never is.
    """
    used = (_before(probs) <= p) if p < 1 else torch.ones_like(probs, dtype=torch.bool)
    used = used & (probs > 0)
    used[:, 0] = True
    return used


def _before(probs: torch.Tensor) -> torch.Tensor:
    """What the heavier experts of the row hold together."""
    return probs.cumsum(-1) - probs


def padded(routed: Routed, used: Bool[torch.Tensor, "t k"]) -> Routed:
    """Cut to the widest row of ``used`` (which every row begins with) and pad the others.

    Cost: the width is read from the device, one wait per call.
    """
    width = max(1, int(used.sum(-1).max())) if len(used) else 1
    weights, indices = routed.weights[:, :width], routed.indices[:, :width]
    used = used[:, :width]
    return Routed(weights * used, torch.where(used, indices, indices[:, :1]))


@dataclass(frozen=True, eq=False)
class LayerRouting:
    """One layer: logits ``[t e]`` and triples ``[m]``; an expert that adds nothing has no triple.

    Raises:
        BadInput: triples of different lengths, or outside the logits.
    """

    logits: Float[torch.Tensor, "t e"]
    token: Int[torch.Tensor, " m"]
    expert: Int[torch.Tensor, " m"]
    weight: Float[torch.Tensor, " m"]

    def __post_init__(self) -> None:
        count = {len(self.token), len(self.expert), len(self.weight)}
        if self.logits.dim() != 2 or len(count) != 1:
            raise BadInput("routing: logits must be [t e] and the triples equally long")
        for name, limit in (("token", self.logits.shape[0]), ("expert", self.logits.shape[1])):
            ids = getattr(self, name)
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < limit:
                raise BadInput(f"routing: {name} must lie in [0, {limit})")

    @staticmethod
    def of(logits: torch.Tensor, routed: Routed) -> LayerRouting:
        """The triples of a gate's answer, row by row in its order; padding is dropped."""
        token, slot = (routed.weights != 0).nonzero(as_tuple=True)
        parts = (logits.float(), token, routed.indices[token, slot].long())
        kept = [part.detach().cpu() for part in (*parts, routed.weights[token, slot].float())]
        return LayerRouting(*kept)

    @property
    def dense(self) -> Float[torch.Tensor, "t e"]:
        """Weight of every expert for every token, 0 = not chosen."""
        grid = torch.zeros_like(self.logits)
        return grid.index_put_((self.token, self.expert), self.weight, accumulate=True)

    @property
    def load(self) -> Float[torch.Tensor, " e"]:
        """Share of the tokens that each expert sees; top-k routing sums to k."""
        return (self.dense != 0).float().mean(0)

    @property
    def entropy(self) -> Float[torch.Tensor, " t"]:
        """Entropy of the router's law of each token, in nats."""
        return torch.distributions.Categorical(logits=self.logits).entropy()

    @property
    def experts_per_token(self) -> Int[torch.Tensor, " t"]:
        return (self.dense != 0).sum(-1)

    def union(self, tokens: Iterable[int] | None = None) -> frozenset[int]:
        """Experts that any of these tokens (None = all) is sent to."""
        if tokens is None:
            return frozenset(self.expert.tolist())
        wanted = torch.isin(self.token, torch.tensor(list(tokens), dtype=torch.long))
        return frozenset(self.expert[wanted].tolist())

    def ranked(self, rank: int) -> tuple[list[int], list[float]]:
        """Expert and weight of each token's rank-th heaviest choice; -1 and 0 where none is."""
        weights, experts = self.dense.sort(dim=-1, descending=True, stable=True)
        if rank >= weights.shape[1]:
            return [-1] * len(weights), [0.0] * len(weights)
        chosen = torch.where(weights[:, rank] != 0, experts[:, rank], -1)
        return chosen.tolist(), weights[:, rank].tolist()


@dataclass(frozen=True, eq=False)
class RoutingRecord:
    """The routing of one pass: layer number -> :class:`LayerRouting`, all of the same tokens.

    Args:
        layers: the layers that have experts.
        tokens: ids of the tokens, empty where they are not known.

    Raises:
        BadInput: no layer, or layers (or ids) of different token counts.
    """

    layers: Mapping[int, LayerRouting]
    tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(layer.logits) for layer in self.layers.values()}
        if len(counts) != 1:
            raise BadInput("routing: needs one or more layers, all of the same tokens")
        if self.tokens and len(self.tokens) != self.token_count:
            raise BadInput(f"routing: {len(self.tokens)} ids for {self.token_count} tokens")

    @cached_property
    def token_count(self) -> int:
        return len(next(iter(self.layers.values())).logits)

    @cached_property
    def expert_count(self) -> int:
        """Of the layer with the most."""
        return max(layer.logits.shape[1] for layer in self.layers.values())

    def distinct(self, tokens: Iterable[int] | None = None) -> dict[int, int]:
        """Layer -> how many experts these tokens touch together."""
        wanted = None if tokens is None else list(tokens)
        return {number: len(layer.union(wanted)) for number, layer in self.layers.items()}

    def flow(self, lower: int, upper: int) -> Float[torch.Tensor, "a b"]:
        """Share of the tokens whose heaviest expert is a in layer ``lower`` and b in ``upper``."""
        first, second = (self.layers[number] for number in (lower, upper))
        a, b = (torch.tensor(layer.ranked(0)[0]) for layer in (first, second))
        both = (a >= 0) & (b >= 0)
        counts = torch.zeros(first.logits.shape[1], second.logits.shape[1])
        ones = torch.ones(int(both.sum()))
        return counts.index_put_((a[both], b[both]), ones, accumulate=True) / self.token_count

    # ---- files -----------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """As safetensors; the ids and the schema are in its metadata."""
        tensors = {
            f"{number}.{part}": getattr(layer, part).contiguous()
            for number, layer in self.layers.items()
            for part in _PARTS
        }
        head = {"schema": str(SCHEMA), "kind": "routing", "tokens": json.dumps(self.tokens)}
        return save(tensors, head)

    def save(self, path: str | Path) -> Path:
        """Write the file; returns where."""
        Path(path).write_bytes(self.to_bytes())
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> RoutingRecord:
        """Read and check a file.

        Raises:
            TraceError: not such a file; the message says what is wrong with it.
        """
        try:
            with safe_open(str(path), "pt") as file:
                head = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise TraceError(f"{path}: no routing record ({error})") from None
        if head.get("kind") != "routing" or head.get("schema") != str(SCHEMA):
            raise TraceError(f"{path}: no routing record of schema {SCHEMA}; record it again")
        try:
            return _assembled(tensors, json.loads(head["tokens"]))
        except (KeyError, ValueError, TypeError) as error:
            raise TraceError(f"{path}: a damaged routing record ({error})") from None


def _assembled(tensors: dict[str, torch.Tensor], tokens: list[int]) -> RoutingRecord:
    numbers = sorted({int(name.split(".")[0]) for name in tensors})
    layers = {}
    for number in numbers:
        parts = {part: tensors[f"{number}.{part}"] for part in _PARTS}
        for part, kind in _PARTS.items():
            if parts[part].dtype != kind:
                raise ValueError(f"{number}.{part} is {parts[part].dtype}, not {kind}")
        if not all(bool(parts[part].isfinite().all()) for part in ("logits", "weight")):
            raise ValueError(f"layer {number} holds NaN or infinity")
        layers[number] = LayerRouting(**parts)
    if not all(isinstance(token, int) for token in tokens):
        raise ValueError("tokens must be whole numbers")
    return RoutingRecord(layers, tuple(tokens))


# ---- top-p over a record -----------------------------------------------------------------------


def experts_at(record: RoutingRecord, p: float) -> float:
    """Mean experts of a token and layer if the recorded logits were routed by top-p."""
    used = [crossing(_sorted(layer), p).sum(-1).float() for layer in record.layers.values()]
    return float(torch.cat(used).mean())


def p_for_mean(record: RoutingRecord, experts: float) -> float:
    """The p of top-p routing that gives a token this many experts in the mean.

    An expert joins where p reaches what the heavier ones hold together, so the answer is read off
    the sorted list of these sums: exact up to ties, with nothing to search for. Under another rule
    the later layers hear something else, so a record made under top-p answers best.

    Args:
        record: routing of some text.
        experts: wanted mean, from 1 to the number of experts.

    Raises:
        BadInput: a mean that no p can give.
    """
    sizes = [layer.logits.shape[1] for layer in record.layers.values()]
    most = sum(sizes) / len(sizes)
    if not 1 <= experts <= most:
        raise BadInput(f"experts={experts!r}: the mean must lie in [1, {most:g}]")
    rows = record.token_count * len(record.layers)
    sums = [_before(_sorted(layer))[:, 1:].flatten() for layer in record.layers.values()]
    joins = torch.cat(sums).sort().values
    wanted = round((experts - 1) * rows)
    if wanted >= len(joins):
        return 1.0
    return float(joins[wanted - 1]) if wanted else 0.0


def _sorted(layer: LayerRouting) -> torch.Tensor:
    """The law of each token, heaviest first, as a top-p rule orders it."""
    return torch.topk(law(layer.logits), layer.logits.shape[-1], dim=-1).values
