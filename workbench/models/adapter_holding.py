"""The peft model that keeps an adapter: making it, and reaching the adapter's tensors through it.

Most types live in layers inside the network; virtual tokens live in an encoder beside it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from workbench.models.adapter_checks import outer_name
from workbench.models.adapter_strength import Attached
from workbench.models.virtual_tokens import FLAT, VirtualTokens, encoder_tensors, fill_encoder


def hold(network: nn.Module, attached: Mapping[str, Attached], config: Any, name: str) -> Any:
    """The peft model that keeps the adapter: that of its type, or a new one around all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if config.is_prompt_learning:
            holder = PeftModel(network, config, name, autocast_adapter_dtype=False)
            VirtualTokens.put(network, holder, name)
            return holder
        for other in attached.values():
            if other.config.peft_type == config.peft_type:
                other.holder.add_adapter(name, config)
                return other.holder
        vars(network).pop("peft_config", None)
        return PeftModel(network, config, name, autocast_adapter_dtype=False)


def tensors_of(entry: Attached, name: str, others: Collection[str]) -> dict[str, torch.Tensor]:
    """The tensors themselves, under the names that they have among the other adapters'.

    peft leaves out the other adapters of the same type only; those of other types are ours to
    leave out, by the part of the path that is an adapter's name.
    """
    holder = entry.holder
    if entry.config.is_prompt_learning:
        return encoder_tensors(holder.prompt_encoder[name])
    own = {k: v for k, v in holder.state_dict().items() if not set(others) & set(k.split("."))}
    return get_peft_model_state_dict(holder, own, name, save_embedding_layers=False)


@torch.no_grad()
def fill(
    entry: Attached, name: str, own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> None:
    """Overwrite ``own``, the adapter's tensors, with those ``given`` under their outer names."""
    if entry.config.is_prompt_learning:
        fill_encoder(own, given)
        return
    inner = {outer_name(key): key for key in own}
    renamed = {inner[key]: value for key, value in given.items()}
    set_peft_model_state_dict(entry.holder, renamed, adapter_name=name)


def make_trainable(entry: Attached, name: str) -> None:
    """Let gradients reach this adapter's tensors."""
    if entry.config.is_prompt_learning:
        entry.holder.prompt_encoder[name].requires_grad_(True)
    else:
        entry.holder.set_requires_grad(name, True)


def to_save(
    entry: Attached, name: str, state: dict[str, torch.Tensor]
) -> tuple[Any, dict[str, torch.Tensor]]:
    """A copy of the configuration, and what peft would save: of an encoder only what it makes."""
    config = copy.deepcopy(entry.config)
    if config.is_prompt_learning:
        state = {FLAT: entry.holder.get_prompt_embedding_to_save(name)}
    return config, state
