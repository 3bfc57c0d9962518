"""A model's weights as the kernel wants them, and whether they are still those of the model."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from workbench.models.anatomy import Anatomy
from workbench.models.native.build import Layer, Matrix, Unavailable, kernel
from workbench.models.native.panels import packed_matrix
from workbench.models.watch import Watch

# Of a larger weight only slices are digested; a change by training or merging touches them all.
_DIGESTED = 1 << 20
_SLICES = 64


class Packed:
    """The packed layers and head of one model.

    Weights are copied: as bfloat16 where that loses nothing (most checkpoints were saved so), else
    as float32. :meth:`current` says before every pass whether modules, hooks or weights have
    changed since; :meth:`unchanged` reads the weights themselves.

    Raises:
        Unavailable: with the reason, where a part is no plain linear map, norm or gated MLP.
    """

    def __init__(self, anatomy: Anatomy):
        self._library = kernel()
        _check_room(anatomy)
        self._kept: list[torch.Tensor] = []  # what the structures point to
        self._watch = Watch()
        self.bytes = 0
        self.layers = (Layer * len(anatomy.layers))()
        for place, layer in enumerate(anatomy.layers):
            self._watch.child(anatomy.layers, str(place))
            self._fill(self.layers[place], layer)
        for module in (anatomy.head, anatomy.norm, anatomy.embed):
            self._watch.note(module)
        self.head = self._matrix([self._linear(anatomy.head)])
        self.final_norm, self.final_eps = self._norm(anatomy.norm)
        self.embedding = _table(anatomy.embed)
        self.embedding_shape = (0, 0) if self.embedding is None else tuple(self.embedding.shape)
        self.layers_at = address(self.layers)
        self._digests = self._digest()
        self._watch.seal()

    # -- what is packed ---------------------------------------------------------------------------

    def _fill(self, to: Layer, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        for name in ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm"):
            self._watch.child(layer, name)
        to.norm_in, to.eps = self._norm(layer.input_layernorm)
        to.norm_mlp, eps = self._norm(layer.post_attention_layernorm)
        if eps != to.eps:
            raise Unavailable("the two norms of a layer have different eps")
        q, k, v = (self._child(attention, f"{name}_proj") for name in "qkv")
        to.qkv = self._matrix([q, k, v])
        to.out = self._matrix([self._child(attention, "o_proj")])
        to.size, to.scale = attention.head_dim, attention.scaling
        to.heads, to.kv_heads = q.out_features // to.size, k.out_features // to.size
        to.width = q.in_features
        if hasattr(attention, "q_norm"):
            to.norm_q, to.eps_heads = self._norm(self._watch.child(attention, "q_norm"))
            to.norm_k, _ = self._norm(self._watch.child(attention, "k_norm"))
        self._fill_mlp(to, mlp)

    def _fill_mlp(self, to: Layer, mlp: Any) -> None:
        names = ("gate_proj", "up_proj", "down_proj")
        if not all(isinstance(getattr(mlp, name, None), nn.Module) for name in names):
            return  # a mixture: its experts stay with torch, the attention is compiled
        act = getattr(mlp, "act_fn", None)
        if type(act).__name__ not in ("SiLU", "SiLUActivation") or len(mlp._modules) != 4:
            raise Unavailable(f"the MLP {type(mlp).__name__} is no SiLU-gated one")
        gate, up, down = (self._child(mlp, name) for name in names)
        to.gate_up, to.down = self._matrix([gate, up]), self._matrix([down])
        to.inner = gate.out_features

    def feeds(self, index: int) -> bool:
        """Whether the MLP of a layer is packed too."""
        return self.layers[index].inner > 0

    def _child(self, parent: Any, name: str) -> nn.Linear:
        return self._linear(self._watch.child(parent, name))

    def _linear(self, module: nn.Module) -> nn.Linear:
        if type(module) is not nn.Linear:
            raise Unavailable(f"{type(module).__name__} is no plain linear map")
        return module

    def _norm(self, module: Any) -> tuple[int, float]:
        weight = module.weight
        if weight.dtype != torch.float32 or not weight.is_contiguous():
            raise Unavailable("a norm is not in float32")
        self._kept.append(weight.detach().clone())  # the module's own may move while we point to it
        return self._kept[-1].data_ptr(), module.variance_epsilon

    def _matrix(self, parts: list[nn.Linear]) -> Matrix:
        """The linear maps of one input stacked into one packed matrix."""
        weights = [part.weight.detach() for part in parts]
        if any(w.dtype != torch.float32 or w.device.type != "cpu" for w in weights):
            raise Unavailable("weights are not float32 on the CPU")
        stacked = torch.cat(weights) if len(parts) > 1 else weights[0].contiguous()
        matrix, panels = packed_matrix(stacked, self._bias(parts))
        self._kept.append(panels)
        self.bytes += panels.nbytes
        return matrix

    def _bias(self, parts: list[nn.Linear]) -> int | None:
        if all(part.bias is None for part in parts):
            return None
        zero = [torch.zeros(part.out_features) for part in parts]
        bias = [z if p.bias is None else p.bias.detach() for p, z in zip(parts, zero, strict=True)]
        self._kept.append(torch.cat(bias).float().contiguous())
        return self._kept[-1].data_ptr()

    # -- whether it is still so -------------------------------------------------------------------

    def current(self) -> bool:
        """Whether modules, hooks and the version counters of all weights are as they were."""
        return self._watch.standing() and self._watch.untouched()

    def unchanged(self) -> bool:
        """Whether the weights still hold the numbers that were packed.

        For changes that leave no trace on a tensor's version counter, as ``weight.data += x`` does.
        """
        return self._digests == self._digest()

    def _digest(self) -> list[int]:
        digest, found = self._library.wb_digest, []
        for flat in self._flat_weights():
            step = max(1, len(flat) // _SLICES)
            size = len(flat) if len(flat) <= _DIGESTED else _DIGESTED // _SLICES
            stop = 1 if size == len(flat) else len(flat)
            for start in range(0, stop, step):
                part = flat[start : start + size]
                found.append(digest(part.data_ptr(), part.nbytes // 4))
        return found

    def _flat_weights(self) -> Iterator[torch.Tensor]:
        seen: set[int] = set()
        for weight in self._watch.weights:
            if id(weight) not in seen:
                seen.add(id(weight))
                yield weight.detach().contiguous().view(-1)


def _table(embed: nn.Module) -> torch.Tensor | None:
    """The embeddings ``[v d]`` where looking one up is copying a row."""
    if type(embed) is not nn.Embedding or embed.max_norm is not None:
        return None
    weight = embed.weight
    return weight if weight.dtype == torch.float32 and weight.is_contiguous() else None


def _check_room(anatomy: Anatomy) -> None:
    """Refuse a copy that would take more than half of the memory that is free."""
    weights = {id(p): p.nbytes for p in (*anatomy.layers.parameters(), *anatomy.head.parameters())}
    free = free_bytes()
    if sum(weights.values()) > free / 2:
        raise Unavailable(
            f"a packed copy of {sum(weights.values()) / 1e9:.1f} GB does not fit half of the"
            f" {free / 1e9:.1f} GB of memory that are free"
        )


def free_bytes() -> float:
    """Memory that is free; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return float("inf")


def pointer(tensor: torch.Tensor | None) -> int | None:
    """The address of a tensor's numbers."""
    return None if tensor is None else tensor.data_ptr()


def address(structure: ctypes.Structure | ctypes.Array) -> int:
    """The address of a structure."""
    return ctypes.addressof(structure)
