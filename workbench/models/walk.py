"""Three ways to run a model over rows that see the stored prefix and their own ancestors.

``stock`` calls the model as transformers ships it, with an additive 4-D mask: the reference.
``walk`` calls the model's own layers one by one, so that spans and taps are possible. ``fused``
also repeats the attention arithmetic of plain pre-norm families around the model's own projections:
fewer, larger operations, which is what counts for small models. Adapters, hooks and masks on the
projections and the MLP keep working in all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch.nn import functional as F

from workbench.core.span import Span
from workbench.models.anatomy import Anatomy
from workbench.models.cache import KeyValueCache
from workbench.models.rows import Rows, causal_mask


@dataclass(frozen=True, eq=False)
class Activations:
    """The final normed hidden states ``[n d]``, the tapped layers, and what makes the logits."""

    final: torch.Tensor
    taps: dict[str, torch.Tensor]
    logits: Callable[[torch.Tensor], torch.Tensor]


def stock_pass(network, rows: Rows, cache: KeyValueCache, capture, last_only: bool):
    """Logits ``[n v]`` (or ``[1 v]``) and taps from the model's own forward."""
    mask = rows.mask
    if mask is None:
        mask = causal_mask(len(rows.ids), rows.past, network.dtype, rows.ids.device)
    output = network(
        input_ids=rows.ids[None],
        position_ids=rows.positions[None],
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=bool(capture),
        logits_to_keep=1 if last_only else 0,
    )
    taps = {}
    for name in capture:
        states = output.hidden_states
        taps[name] = states[-1 if name == "final" else int(name)][0]
    return output.logits[0], taps


def walk_pass(
    anatomy: Anatomy, rows: Rows, cache: KeyValueCache, span: Span | None, capture, stream=None
) -> Activations:
    """Call the layers of ``span`` one by one; taps are named by how many layers came before.

    With ``stream`` the rows enter with these states ``[n d]`` at the first layer of the span.
    """
    if stream is None:
        hidden = anatomy.embedded(rows.ids, rows.positions)
    else:
        hidden = stream[None]
    rotary = anatomy.rotary(hidden, rows.positions[None]) if anatomy.rotary else None
    cached = {anatomy.cache_argument: cache}
    mask = rows.mask
    if mask is None:
        mask = causal_mask(len(rows.ids), rows.past, hidden.dtype, hidden.device)
    taps = {}
    for index, layer in enumerate(anatomy.layers):
        if str(index) in capture:
            taps[str(index)] = hidden[0]
        if span is not None and index not in span.attention:
            continue
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_ids=rows.positions[None],
            use_cache=True,
            position_embeddings=rotary,
            **cached,
        )
        if isinstance(hidden, tuple):
            hidden = hidden[0]
    return _finish(anatomy, hidden[0], taps, capture)


def _finish(anatomy: Anatomy, hidden, taps, capture) -> Activations:
    if str(len(anatomy.layers)) in capture:
        taps[str(len(anatomy.layers))] = hidden
    final = anatomy.norm(hidden)
    if "final" in capture:
        taps["final"] = final
    return Activations(final, taps, anatomy.logits)


@runtime_checkable
class Store(Protocol):
    """Where one layer's keys and values go."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take ``[1 heads n head_dim]`` of the rows; gives those of every slot in view."""
        ...


class FusedWalk:
    """The fast pass of plain pre-norm rotary families.

    Query heads that share a key head are folded into rows of one head, so that grouped-query
    attention needs no copied keys; rotary tables are computed once by the model's own module.
    """

    def __init__(self, anatomy: Anatomy):
        self.anatomy = anatomy
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def rotary_tables(self, like: torch.Tensor, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cos and signed sin ``[positions 1 head_dim]`` of all positions up to ``end`` at least."""
        tables = self._tables
        if tables is None or tables[0].dtype != like.dtype or len(tables[0]) < end:
            every = torch.arange(max(1024, 1 << end.bit_length()), device=like.device)[None]
            cos, sin = self.anatomy.rotary(like[None], every)
            sin = sin.clone()
            sin[..., : sin.shape[-1] // 2].neg_()
            self._tables = tables = cos[0, :, None], sin[0, :, None]
        return tables

    def _rotary(self, like: torch.Tensor, rows: Rows):
        """Cos and signed sin ``[n 1 head_dim]``: rotating is x*cos + roll(x)*sin."""
        end = rows.past + len(rows.ids)
        tables = self.rotary_tables(like, end)
        if len(rows.ids) == 1 and rows.chain:  # a view is sooner had than a gather
            return tables[0][rows.past : end], tables[1][rows.past : end]
        return tables[0][rows.positions], tables[1][rows.positions]

    def __call__(
        self, rows: Rows, cache: KeyValueCache, span: Span | None, capture, stream=None
    ) -> Activations:
        """Run the sub-layers of ``span`` (None = all), from the embeddings or from ``stream``."""
        return self.run(rows, cache.layers, span, capture, stream)

    def run(
        self, rows: Rows, stores: Sequence[Store], span: Span | None, capture, stream=None
    ) -> Activations:
        """The same on any stores of keys and values, one a layer."""
        hidden = self.anatomy.embed(rows.ids) if stream is None else stream
        cos, sin = self._rotary(hidden, rows)
        mask, taps = rows.mask, {}
        groups = self.anatomy.layers[0].self_attn.num_key_value_groups
        if mask is not None and groups > 1:
            mask = mask.repeat(1, 1, groups, 1)
        for index, layer in enumerate(self.anatomy.layers):
            if str(index) in capture:
                taps[str(index)] = hidden
            if span is None or index in span.attention:
                normed = _rms_norm(layer.input_layernorm, hidden)
                mixed = _attend(layer.self_attn, normed, cos, sin, stores[index], mask, rows.causal)
                hidden = hidden + mixed
            if span is None or index in span.mlp:
                mixed = layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden)[None])
                hidden = hidden + (mixed[0] if isinstance(mixed, tuple) else mixed).view_as(hidden)
        return _finish(self.anatomy, hidden, taps, capture)


def _rms_norm(norm, x: torch.Tensor) -> torch.Tensor:
    """One fused operation in fp32; the module itself in half precision, whose rounding differs."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)
    return norm(x)


def _attend(attention, x, cos, sin, store, mask, causal: bool) -> torch.Tensor:
    n, size = x.shape[0], attention.head_dim
    q = attention.q_proj(x).view(n, -1, size)
    k = attention.k_proj(x).view(n, -1, size)
    v = attention.v_proj(x).view(n, -1, size)
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    heads, groups = k.shape[1], q.shape[1] // k.shape[1]
    qk = torch.cat((q, k), 1)
    qk = torch.addcmul(qk * cos, qk.roll(size // 2, -1), sin)
    q, k = qk[:, : heads * groups], qk[:, heads * groups :]
    keys, values = store.update(k.transpose(0, 1)[None], v.transpose(0, 1)[None])
    scale = attention.scaling
    if causal:
        mixed = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], keys, values, is_causal=True, scale=scale, enable_gqa=True
        )
        mixed = mixed[0].transpose(0, 1)
    else:
        folded = q.view(n, heads, groups, size).permute(1, 2, 0, 3).reshape(1, heads, -1, size)
        mixed = F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scale)
        mixed = mixed.view(heads, groups, n, size).permute(2, 0, 1, 3)
    return attention.o_proj(mixed.reshape(n, -1))
