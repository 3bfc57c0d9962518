"""Where the parts of a model are: embedding, layers, final norm and head, named per family.

A family that is not listed still decodes through its stock forward; only methods that need spans or
taps in the middle are refused, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import nn

# model_type -> (embedding, layers, final norm, rotary tables or learned positions), as paths.
_LLAMA_LIKE = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb")
FAMILIES: dict[str, tuple[str, str, str, str]] = {
    **dict.fromkeys(
        """llama mistral qwen2 qwen3 phi3 gemma gemma2 glm glm4 stablelm olmo olmo2 granite smollm3
        qwen2_moe qwen3_moe mixtral olmoe""".split(),
        _LLAMA_LIKE,
    ),
    "gpt_neox": (
        "gpt_neox.embed_in",
        "gpt_neox.layers",
        "gpt_neox.final_layer_norm",
        "gpt_neox.rotary_emb",
    ),
    "gpt2": ("transformer.wte", "transformer.h", "transformer.ln_f", "transformer.wpe"),
    "opt": (
        "model.decoder.embed_tokens",
        "model.decoder.layers",
        "model.decoder.final_layer_norm",
        "model.decoder.embed_positions",
    ),
}

# Attention modules whose arithmetic the fused walk repeats: q, k, v, o projections, rotary over the
# full head, scaled dot product. Anything else is walked layer by layer.
FUSED_ATTENTION = {
    "LlamaAttention",
    "MistralAttention",
    "Qwen2Attention",
    "Qwen3Attention",
    "MixtralAttention",
    "Qwen2MoeAttention",
    "Qwen3MoeAttention",
}

# Rotary tables that do not change with the length of the text, so that they can be kept.
FIXED_ROTARY = {"default", "linear", "llama3", "yarn"}


def _follow(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return reduce(getattr, path.split("."), root) if path else None
    except AttributeError:
        return None


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The named parts of one loaded model.

    ``places`` makes rotary tables, or is the embedding of learned positions. ``softcap`` bounds the
    logits (Gemma 2), and ``cache_argument`` is the name under which layers take the cache.
    """

    family: str
    embed: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    places: nn.Module | None
    softcap: float | None = None
    cache_argument: str = "past_key_values"

    @property
    def rotary(self) -> nn.Module | None:
        """What makes the rotary tables, or None for learned positions."""
        return None if isinstance(self.places, nn.Embedding) else self.places

    @property
    def walkable(self) -> bool:
        """Whether the layers can be called one by one."""
        return self.places is not None

    @property
    def fusable(self) -> bool:
        """Whether every layer is the plain pre-norm kind that the fused walk repeats."""
        fixed = getattr(self.rotary, "rope_type", None) in FIXED_ROTARY
        return fixed and all(_fusable_layer(layer) for layer in self.layers)

    def embedded(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The stream ``[1 n d]`` before the first layer."""
        stream = self.embed(ids[None])
        if isinstance(self.places, nn.Embedding):
            places = positions[None] + getattr(self.places, "offset", 0)  # OPT counts from 2
            stream = stream + nn.functional.embedding(places, self.places.weight)
        return stream

    def logits(self, final: torch.Tensor) -> torch.Tensor:
        """The head's logits of normed states."""
        logits = self.head(final)
        return logits if self.softcap is None else (logits / self.softcap).tanh() * self.softcap


def _fusable_layer(layer: nn.Module) -> bool:
    attention = getattr(layer, "self_attn", None)
    if type(attention).__name__ not in FUSED_ATTENTION:
        return False
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "scaling", "head_dim")
    norms = (getattr(layer, "input_layernorm", None), getattr(layer, "post_attention_layernorm", 0))
    return (
        all(hasattr(attention, part) for part in parts)
        and all(type(n).__name__.endswith("RMSNorm") for n in norms)
        and hasattr(layer, "mlp")
    )


def anatomy_of(network: nn.Module) -> Anatomy | None:
    """The anatomy of a causal language model, or None for a family that is not listed."""
    family = getattr(network.config, "model_type", "")
    if family not in FAMILIES:
        return None
    parts = [_follow(network, path) for path in FAMILIES[family]]
    head = network.get_output_embeddings()
    if any(part is None for part in parts[:3]) or head is None:
        return None
    takes = inspect.signature(parts[1][0].forward).parameters
    return Anatomy(
        family,
        *parts[:3],
        head,
        parts[3],
        getattr(network.config, "final_logit_softcapping", None),
        "layer_past" if "layer_past" in takes else "past_key_values",
    )


def longest_list(network: nn.Module) -> nn.ModuleList | list:
    """The layers of a family that is not listed: its longest list of modules."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=[])


def first_bad_layer(network: nn.Module, layers, call: Callable[[], object]) -> str:
    """Run ``call`` with a tap on every layer; the name of the first that gives NaN or infinity."""
    found: list[str] = []

    def tap(name: str):
        def hook(module, args, output):
            value = output[0] if isinstance(output, tuple) else output
            if torch.is_tensor(value) and not found and not bool(torch.isfinite(value).all()):
                found.append(name)

        return hook

    handles = [layer.register_forward_hook(tap(f"layer {i}")) for i, layer in enumerate(layers)]
    handles.append(network.get_input_embeddings().register_forward_hook(tap("the embedding")))
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the output head"
