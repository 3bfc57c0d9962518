"""How a small network lies inside a larger one that computes the same.

*Idea*: the larger stream carries copies of the small one. What writes into it writes every copy;
what reads from it takes a share of each copy, and the shares sum to 1. Everything else of the
larger network computes on random weights, and a zero keeps what it found from being written.

*Shapes*: ``d`` the small stream, ``D`` the large one, ``r`` copies of d channels; ``h`` and ``H``
dimensions a head; matrices are ``[out in]`` as transformers stores them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from workbench.core.errors import BadInput

WAYS = ("duplicate", "zeros")
SPREAD = 0.02  # standard deviation of inert weights


class Shape(NamedTuple):
    """What decides the cost of a Llama-like network."""

    hidden: int
    head_size: int
    heads: int
    kv_heads: int
    inner: int
    layers: int

    @staticmethod
    def of(config) -> Shape:
        """That of a transformers configuration."""
        size = getattr(config, "head_dim", None)
        return Shape(
            config.hidden_size,
            size or config.hidden_size // config.num_attention_heads,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.intermediate_size,
            config.num_hidden_layers,
        )

    def layer_parameters(self, head_norms: bool = False) -> int:
        """Parameters of one layer."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        norms = 2 * self.hidden + (2 * self.head_size if head_norms else 0)
        return attention + 3 * self.hidden * self.inner + norms

    def parameters(self, vocabulary: int, tied: bool, head_norms: bool = False) -> int:
        """Parameters of the whole network."""
        tables = vocabulary * self.hidden * (1 if tied else 2)
        return tables + self.layers * self.layer_parameters(head_norms) + self.hidden


def check_shapes(small: Shape, large: Shape) -> None:
    """Refuse a shape that cannot hold the source.

    Raises:
        BadInput: the first number that is in the way, and what would do.
    """
    for name in ("hidden", "kv_heads", "inner", "layers"):
        least, value = getattr(small, name), getattr(large, name)
        if value < least:
            raise _refusal(name, value, f"the source has {least}; name {least} or more")
    if large.head_size < 1 or large.head_size % small.head_size:
        raise _refusal(
            "head_size",
            large.head_size,
            f"rotary pairs of {small.head_size} find their frequency only in a multiple of it",
        )
    if large.heads < 1 or large.heads % large.kv_heads:
        raise _refusal("heads", large.heads, f"must be a multiple of kv_heads={large.kv_heads}")
    least = small.heads // small.kv_heads
    if large.heads // large.kv_heads < least:
        raise _refusal(
            "heads",
            large.heads,
            f"{least} query heads of the source share a key head; name {least * large.kv_heads} or"
            f" more, or fewer kv_heads than {large.kv_heads}",
        )
    if large.hidden % large.heads:
        raise _refusal("hidden", large.hidden, f"must be a multiple of heads={large.heads}")


def _refusal(name: str, value: int, why: str) -> BadInput:
    return BadInput(f"--{name.replace('_', '-')} {value}: {why}")


def shares(copies: int) -> tuple[float, ...]:
    """Positive powers of two that sum to 1, as equal as can be: scaling by them rounds nothing."""
    whole = 1 << (copies.bit_length() - 1)
    split = copies - whole  # so many of the equal shares are halved
    return (1 / whole,) * (whole - split) + (0.5 / whole,) * (2 * split)


@dataclass(frozen=True)
class Widening:
    """Where everything of the small network goes, and by what it is multiplied.

    Args:
        shares: what a reader takes of each copy; ``[r]``.
        gain: of the stream's norms. Channels without a copy are zero, so the mean square over all
            is ``rd/D`` of the small one, and the gain makes up for it with the root of that.
        eps: of all norms, scaled likewise.
        heads: new index of each query head: first in the group of its key head, which transformers
            finds by division.
        dims: new index of each dimension of a head. With k times the dimensions, the frequency of
            rotary pair j is that of pair kj.
        query, key: factors of these projections. Without head norms the larger root in the scale
            of attention is made up for in the queries; with them the mean square over the larger
            head is kept in proportion to eps.
        key_gain: factor of the head norm of keys.
        head_norms: whether queries and keys are normed (Qwen3).
        tied: whether the head is the table of embeddings; copies need shares, so only without any.
    """

    small: Shape
    large: Shape
    shares: tuple[float, ...]
    gain: float
    eps: float
    heads: tuple[int, ...]
    dims: tuple[int, ...]
    query: float
    key: float
    key_gain: float
    head_norms: bool
    tied: bool

    @staticmethod
    def of(small: Shape, large: Shape, eps: float, way: str, *, tied: bool, head_norms: bool):
        """The exact one.

        Args:
            way: ``duplicate`` fills the stream with as many copies as fit, ``zeros`` keeps one.

        Raises:
            BadInput: a shape that cannot hold the source; see :func:`check_shapes`.
        """
        check_shapes(small, large)
        copies = large.hidden // small.hidden if way == "duplicate" else 1
        filled = copies * small.hidden / large.hidden
        group, old_group = large.heads // large.kv_heads, small.heads // small.kv_heads
        times = large.head_size // small.head_size
        half, old_half = large.head_size // 2, small.head_size // 2
        factor = math.sqrt(filled * times) if head_norms else 1.0
        return Widening(
            small,
            large,
            shares(copies),
            math.sqrt(filled),
            eps * filled,
            tuple(i // old_group * group + i % old_group for i in range(small.heads)),
            tuple(d // old_half * half + d % old_half * times for d in range(small.head_size)),
            factor if head_norms else math.sqrt(times),
            factor,
            1 / math.sqrt(times),
            head_norms,
            tied and copies == 1,
        )

    @property
    def copies(self) -> int:
        return len(self.shares)

    @property
    def channels(self) -> int:
        """Channels of the large stream that hold a copy; the others are zero."""
        return self.copies * self.small.hidden

    def rows(self, heads: tuple[int, ...]) -> torch.Tensor:
        """The rows of a projection that belong to the real dimensions of these heads."""
        first = torch.tensor(heads)[:, None] * self.large.head_size
        return (first + torch.tensor(self.dims)).flatten()


@dataclass(frozen=True)
class Tensors:
    """Makes the large network's tensors, one part at a time.

    Inert weights depend on the seed and the tensor's name only, and are numbers that bfloat16
    holds, whatever ``dtype`` is.
    """

    widening: Widening
    seed: int
    dtype: torch.dtype

    def parts(self, weights: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """Embeddings, every layer, then the final norm with the head: tensors by name.

        Args:
            weights: the small network's, in float32.
        """
        table = weights["model.embed_tokens.weight"]
        yield {"model.embed_tokens.weight": self._written(table.T, None, len(table)).T.contiguous()}
        for index in range(self.widening.large.layers):
            yield self.layer(weights, index)
        last = {"model.norm.weight": self._gain(weights["model.norm.weight"])}
        if not self.widening.tied:
            head = weights.get("lm_head.weight", table)
            name = "lm_head.weight"
            last[name] = self._read(name, head, torch.arange(len(head)), len(head))
        yield last

    def layer(self, weights: Mapping[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
        """One layer; beyond the source's layers one that adds exactly nothing to the stream."""
        prefix = f"model.layers.{index}."
        old = {
            name.removeprefix(prefix): weight
            for name, weight in weights.items()
            if name.startswith(prefix)
        }
        made = {**self._attention(prefix, old), **self._mlp(prefix, old)}
        for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            made[name] = self._gain(old.get(name))
        return {prefix + name: tensor for name, tensor in made.items()}

    def _attention(self, prefix: str, old: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        w, large = self.widening, self.widening.large
        kv = tuple(range(w.small.kv_heads))
        plan = {
            "q": (w.heads, large.heads, w.query),
            "k": (kv, large.kv_heads, w.key),
            "v": (kv, large.kv_heads, 1.0),
        }
        made = {}
        for letter, (heads, count, factor) in plan.items():
            name = f"self_attn.{letter}_proj.weight"
            weight, rows = old.get(name), w.rows(heads)
            made[name] = new = self._noise(prefix + name, count * large.head_size, large.hidden)
            if weight is not None:
                if letter != "v":  # other pairs of a real head must not turn up in its products
                    new.view(count, large.head_size, large.hidden)[list(heads)] = 0
                self._fill(new, weight * factor, rows)
        name = "self_attn.o_proj.weight"
        made[name] = self._written(old.get(name), w.rows(w.heads), large.heads * large.head_size)
        if w.head_norms:
            for letter, factor in (("q", 1.0), ("k", w.key_gain)):
                name = f"self_attn.{letter}_norm.weight"
                made[name] = torch.ones(large.head_size, dtype=self.dtype)
                if name in old:
                    made[name][list(w.dims)] = (old[name] * factor).to(self.dtype)
        return made

    def _mlp(self, prefix: str, old: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        real, inner = torch.arange(self.widening.small.inner), self.widening.large.inner
        made = {}
        for name in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
            made[name] = self._read(prefix + name, old.get(name), real, inner)
        name = "mlp.down_proj.weight"
        made[name] = self._written(old.get(name), real, inner)
        return made

    def _noise(self, name: str, *size: int) -> torch.Tensor:
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        noise = torch.empty(size).normal_(0, SPREAD, generator=generator)
        return noise.to(torch.bfloat16).to(self.dtype)

    def _read(
        self, name: str, weight: torch.Tensor | None, rows: torch.Tensor, count: int
    ) -> torch.Tensor:
        """A matrix that reads the stream: ``[count D]``, inert but for ``rows``."""
        new = self._noise(name, count, self.widening.large.hidden)
        if weight is not None:
            self._fill(new, weight, rows)
        return new

    def _fill(self, new: torch.Tensor, weight: torch.Tensor, rows: torch.Tensor) -> None:
        width = weight.shape[1]
        for copy, share in enumerate(self.widening.shares):
            new[rows, copy * width : (copy + 1) * width] = (weight * share).to(self.dtype)

    def _written(
        self, weight: torch.Tensor | None, columns: torch.Tensor | None, count: int
    ) -> torch.Tensor:
        """A matrix that writes into the stream: ``[D count]``, zero but for the copies."""
        new = torch.zeros(self.widening.large.hidden, count, dtype=self.dtype)
        if weight is not None:
            every = torch.arange(count) if columns is None else columns
            copies = weight.to(self.dtype).repeat(self.widening.copies, 1)
            new[: self.widening.channels, every] = copies
        return new

    def _gain(self, weight: torch.Tensor | None) -> torch.Tensor:
        """The gain of a norm of the stream; what reads a channel without a copy reads zeros."""
        new = torch.ones(self.widening.large.hidden, dtype=self.dtype)
        if weight is not None:
            scaled = (weight * self.widening.gain).to(self.dtype)
            new[: self.widening.channels] = scaled.repeat(self.widening.copies)
        return new
