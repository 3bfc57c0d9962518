"""A decoder layer of our own for heads that attend: trained from scratch beside a target.

One batched causal pass for training, and an incremental pass with a key/value store for drafting,
in which rows may form a tree. The arithmetic is Llama's (pre-norm, rotary, grouped queries).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.inference import inference_mode


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a block; :meth:`of` takes them from a target's configuration.

    ``inner`` is the width of the gated MLP; 0 = attention only.
    """

    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    rope_theta: float = 1e4
    eps: float = 1e-5

    @staticmethod
    def of(config, inner: int | None = None) -> BlockShape:
        """The target's own sizes; ``inner`` overrides its MLP's."""
        config = config.get_text_config()
        heads = config.num_attention_heads
        rope = getattr(config, "rope_parameters", None) or {}
        wide = getattr(config, "intermediate_size", 4 * config.hidden_size)
        return BlockShape(
            config.hidden_size,
            heads,
            getattr(config, "num_key_value_heads", None) or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
            wide if inner is None else inner,
            rope.get("rope_theta") or getattr(config, "rope_theta", None) or 1e4,
            getattr(config, "rms_norm_eps", None) or 1e-5,
        )


class BlockStore:
    """Keys and values ``[1 heads t head_width]`` of the rows a block has seen; cropped at will."""

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.length = 0

    def __len__(self) -> int:
        return self.length

    def crop(self, length: int) -> None:
        """Forget everything after the first ``length`` rows."""
        self.length = min(self.length, length)

    def append(self, keys: torch.Tensor, values: torch.Tensor):
        """Add rows; returns views of everything up to and with them."""
        end = self.length + keys.shape[2]
        if self.keys is None or self.keys.shape[2] < end:
            self._grow(keys, values, max(64, 2 * end))
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grow(self, keys, values, capacity: int) -> None:
        for name, like in (("keys", keys), ("values", values)):
            old = getattr(self, name)
            new = like.new_zeros(*like.shape[:2], capacity, like.shape[3])
            if old is not None:
                new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)


class Block(nn.Module):
    """One layer: attention, then a gated MLP unless ``shape.inner`` is 0.

    Args:
        shape: sizes.
        input_norm: whether the stream is normed before attention (EAGLE's layer does not).

    Shapes: rows ``[b t d]`` in, ``[b t d]`` out; the residual is added inside.
    """

    def __init__(self, shape: BlockShape, *, input_norm: bool = True):
        super().__init__()
        self.shape = shape
        d, size = shape.width, shape.head_width
        self.input_norm = nn.RMSNorm(d, eps=shape.eps) if input_norm else nn.Identity()
        self.q = nn.Linear(d, shape.heads * size, bias=False)
        self.k = nn.Linear(d, shape.kv_heads * size, bias=False)
        self.v = nn.Linear(d, shape.kv_heads * size, bias=False)
        self.o = nn.Linear(shape.heads * size, d, bias=False)
        if shape.inner:
            self.mlp_norm = nn.RMSNorm(d, eps=shape.eps)
            self.gate = nn.Linear(d, shape.inner, bias=False)
            self.up = nn.Linear(d, shape.inner, bias=False)
            self.down = nn.Linear(shape.inner, d, bias=False)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor | None = None,
        store: BlockStore | None = None,
        visible: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Causal over the batch's rows, or over a store's rows and the new ones.

        Args:
            x: the stream ``[b t d]`` (b = 1 with a store).
            positions: of the rows ``[t]``; default: after the store's.
            store: keys and values of earlier rows; the new ones are appended.
            visible: bool ``[t stored+t]``, who sees whom; default causal.
        """
        x = x + self.o(self._attend(self.input_norm(x), positions, store, visible))
        if self.shape.inner:
            y = self.mlp_norm(x)
            x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return x

    def _attend(self, x, positions, store, visible) -> torch.Tensor:
        b, t, _ = x.shape
        size, past = self.shape.head_width, 0 if store is None else len(store)
        if positions is None:
            positions = torch.arange(past, past + t, device=x.device)
        cos, sin = _rotation(positions, self.shape, x.dtype)
        q = _turned(self.q(x).view(b, t, -1, size).transpose(1, 2), cos, sin)
        k = _turned(self.k(x).view(b, t, -1, size).transpose(1, 2), cos, sin)
        v = self.v(x).view(b, t, -1, size).transpose(1, 2)
        if store is not None:
            k, v = store.append(k, v)
        causal = visible is None and past == 0 and t > 1
        if visible is None and past and t > 1:
            visible = torch.ones(t, past + t, dtype=torch.bool, device=x.device).tril(past)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=visible, is_causal=causal, enable_gqa=True
        )
        return mixed.transpose(1, 2).reshape(b, t, -1)


def _rotation(positions: torch.Tensor, shape: BlockShape, dtype: torch.dtype):
    """Cosines and sines ``[t size/2]`` of the angles at these positions."""
    angle = positions[:, None].float() * _speeds(shape, positions.device)
    return angle.cos().to(dtype), angle.sin().to(dtype)


@lru_cache(maxsize=16)
def _speeds(shape: BlockShape, device: torch.device) -> torch.Tensor:
    half = shape.head_width // 2
    with inference_mode(False):  # training reads them as well
        return shape.rope_theta ** -(torch.arange(half, device=device).float() / half)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of ``[b h t size]``: the halves of each head are a vector's two parts."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
