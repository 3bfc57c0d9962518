"""Virtual tokens: keys and values that no text put there and that every row sees.

*Idea*: prefix tuning trains them as they are; prompt tuning and p-tuning train embeddings, which
one pass of the model turns into keys and values (the same as running them in front of each text,
since nothing before a token sees it). They hang in the network as a child with a hook, so a plain
forward of a whole text begins with them just as peft's own forward does; a session asks for them
and begins its cache with them. Text then starts at position ``count``, as in peft.

Strength s of such an adapter counts each of its tokens s times: ln s is added to every row's scores
of them. 1 adds nothing, 0 leaves them out. They have no strength by layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from workbench.core.errors import ModelError
from workbench.models.cache import KeyValueCache
from workbench.models.rows import causal_mask

VIRTUAL_TYPES = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
CHILD = "virtual_tokens"  # the name of the child of a network
FLAT = "prompt_embeddings"  # the name of the tensor that peft saves


class VirtualKeys(NamedTuple):
    """What a session begins with: (keys, values) of each layer, each ``[1 heads n head_dim]``.

    ``bias [n]`` is added to the scores of them; None = nothing is.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    bias: torch.Tensor | None


class _Gathering(DynamicCache):
    """A cache that is being filled with virtual tokens, in which no others must be put."""


class _InFront(DynamicLayer):
    """Keys and values in front of those of one pass, for any number of texts; nothing is stored."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states, value_states, *args, **kwargs):
        texts = (len(key_states), -1, -1, -1)
        keys = torch.cat((self.keys.expand(texts), key_states), 2)
        return keys, torch.cat((self.values.expand(texts), value_states), 2)


class VirtualTokens(nn.Module):
    """The virtual tokens of one network: those of each adapter, in the order of attaching."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict()
        self.strengths: dict[str, float] = {}
        self._holders: dict[str, Any] = {}  # peft models; as children they would be a circle

    @staticmethod
    def of(network: nn.Module) -> VirtualTokens | None:
        """Those of a network, if it has any."""
        return getattr(network, CHILD, None)

    @staticmethod
    def put(network: nn.Module, holder: Any, name: str) -> None:
        """Let a network begin with the tokens of a peft model of prompt learning."""
        own = VirtualTokens.of(network)
        if own is None:
            own = VirtualTokens()
            network.add_module(CHILD, own)
            network.register_forward_pre_hook(own._enter, with_kwargs=True)
        own.encoders[name] = holder.prompt_encoder[name]
        own._holders[name], own.strengths[name] = holder, 1.0

    def set(self, strengths: Mapping[str, float]) -> None:
        """How often each adapter's tokens count; what is not named stays as it is."""
        self.strengths |= {k: v for k, v in strengths.items() if k in self.strengths}

    @property
    def names(self) -> list[str]:
        """The adapters that are on."""
        return [name for name, strength in self.strengths.items() if strength]

    @property
    def count(self) -> int:
        """Virtual tokens in front of a text."""
        return sum(self._tokens(name) for name in self.names)

    def _tokens(self, name: str) -> int:
        return self._holders[name].peft_config[name].num_virtual_tokens

    def keys(self, network: nn.Module) -> VirtualKeys | None:
        """What a session begins with; None where nothing is on.

        Cost: prefixes are only rearranged; embeddings need a pass of ``count`` rows.
        """
        if not self.names:
            return None
        layers = _pairs(self._gathered(network))
        return VirtualKeys(layers, self._bias(layers[0][0]))

    def _gathered(self, network: nn.Module) -> _Gathering:
        """A cache with the virtual tokens of one text."""
        cache = _Gathering()
        for name in self.names:
            prompt = self._holders[name].get_prompt(1)
            if isinstance(prompt, Cache):
                for index, (keys, values) in enumerate(_pairs(prompt)):
                    cache.update(keys, values, index)
            else:
                network(
                    inputs_embeds=prompt.to(network.dtype), past_key_values=cache, use_cache=True
                )
        return cache

    def _bias(self, like: torch.Tensor) -> Float[torch.Tensor, " n"] | None:
        if all(self.strengths[name] == 1 for name in self.names):
            return None
        logs = [math.log(self.strengths[n]) for n in self.names for _ in range(self._tokens(n))]
        return torch.tensor(logs, dtype=like.dtype, device=like.device)

    def _enter(self, network: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
        """Before a forward of the network: what begins at nothing begins at the virtual tokens."""
        given = kwargs.get("past_key_values")
        if not self.names or isinstance(given, (KeyValueCache, _Gathering)):
            return None
        if given is not None and given.get_seq_length():
            return None  # goes on from a pass that began with them
        if given is not None:
            raise ModelError(
                f"adapter={', '.join(self.names)}: transformers' generate() knows no virtual"
                " tokens; decode with a run of the workbench, or with peft's own generate()"
            )
        ids = args[0] if args else kwargs.get("input_ids")
        batch, length = (kwargs["inputs_embeds"] if ids is None else ids).shape[:2]
        cache: Cache = self._gathered(network)
        front = _pairs(cache)
        if kwargs.get("use_cache") is False:
            cache = Cache(layers=[_InFront(*pair) for pair in front])
        elif batch > 1:
            cache.batch_repeat_interleave(batch)
        made = {**kwargs, "past_key_values": cache}
        if (bias := self._bias(front[0][0])) is not None:
            mask = causal_mask(length, len(bias), bias.dtype, bias.device)
            mask[..., : len(bias)] += bias
            made["attention_mask"] = mask
        return args, made


def _pairs(cache: Any) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Keys and values of each layer."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def virtual_keys(network: nn.Module) -> VirtualKeys | None:
    """What a session of this network begins with."""
    own = VirtualTokens.of(network)
    return None if own is None else own.keys(network)


def virtual_count(network: nn.Module) -> int:
    """Virtual tokens in front of a text."""
    own = VirtualTokens.of(network)
    return 0 if own is None else own.count


def encoder_tensors(encoder: nn.Module) -> dict[str, torch.Tensor]:
    """Everything an encoder learns; a plain table under the name that peft saves it by."""
    own: dict[str, torch.Tensor] = dict(encoder.named_parameters())
    return {FLAT: own["embedding.weight"]} if set(own) == {"embedding.weight"} else own


def fill_encoder(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    """Overwrite the tensors of :func:`encoder_tensors`."""
    for name, tensor in own.items():
        tensor.copy_(given[name])


@torch.no_grad()
def start_from_words(network: nn.Module, holder: Any, name: str) -> None:
    """Let a prefix begin as the keys and values of words drawn from the vocabulary.

    What an encoder makes of other parameters (``prefix_projection``) begins as they do.
    """
    encoder = holder.prompt_encoder[name]
    if set(encoder_tensors(encoder)) != {FLAT}:
        return
    table = network.get_input_embeddings().weight
    ids = torch.randint(0, len(table), (1, holder.peft_config[name].num_virtual_tokens))
    cache = _Gathering()
    network(input_ids=ids.to(table.device), past_key_values=cache, use_cache=True)
    rows = torch.stack([one[0] for pair in _pairs(cache) for one in pair])
    rows = rows.permute(2, 0, 1, 3)  # [n 2l heads d]
    encoder.embedding.weight.copy_(rows.reshape(encoder.embedding.weight.shape))
