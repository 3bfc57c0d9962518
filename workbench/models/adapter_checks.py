"""What must be known of a configuration and its layers before and after peft has its way."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from peft.utils.other import _prepare_prompt_learning_config
from torch import nn

from workbench.core.adapter import TargetShape
from workbench.core.errors import BadKnob, Mismatch, closest
from workbench.models.model import Model
from workbench.models.targets import shape_of
from workbench.models.tuners.registering import LinearLayer
from workbench.models.virtual_tokens import VIRTUAL_TYPES

_LEAVES_BASE_ALONE = {"LORA", "IA3", "LN_TUNING", "LOHA", "LOKR", "MOLA", "GROWING", *VIRTUAL_TYPES}
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal")
_RANKED = {"LORA", "ADALORA", "MOLA", "GROWING"}  # whose r is the rank of an update


def kind_of(config: Any) -> str:
    """The name of a configuration's type, e.g. ``LORA``."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def outer_name(path: str) -> str:
    """A path as it is where its adapter is the only one on its module."""
    return ".".join(part for part in path.split(".") if part != "base_layer")


def leaves_base_alone(config: Any) -> bool:
    """Whether attaching surely writes no weight of the base; PiSSA and the like do."""
    plain = getattr(config, "init_lora_weights", None) in _PLAIN_STARTS
    return kind_of(config) in _LEAVES_BASE_ALONE and plain


def scales(layer: Any, name: str) -> bool:
    """Whether multiplying the adapter's ``scaling`` is multiplying its update."""
    if isinstance(layer, LoraLayer):
        return name in layer.scaling and name not in getattr(layer, "lora_variant", {})
    return isinstance(layer, (LycorisLayer, LinearLayer)) and name in layer.scaling


def check_targets(config: Any, network: nn.Module, shapes: Sequence[TargetShape]) -> None:
    """Every listed target must exist; peft itself only minds when none does.

    Raises:
        BadKnob: with the closest name.
    """
    wanted = getattr(config, "target_modules", None)
    if isinstance(wanted, str) or not wanted:
        return
    plain = [outer_name(path) for path, _ in network.named_modules()]
    matrices = list(dict.fromkeys(shape.leaf for shape in shapes))
    for target in sorted(wanted):
        if not any(path == target or path.endswith("." + target) for path in plain):
            leaves = [path.rpartition(".")[2] for path in plain]
            raise BadKnob(
                f"target_modules={target!r}: the model has no such module."
                f"{closest(target, [*matrices, *leaves])} Matrices: {', '.join(matrices)}"
            )


def check_ranks(config: Any, name: str, layers: Iterable[tuple[str, Any]]) -> None:
    """An update of a matrix has no rank above its smaller side.

    Raises:
        BadKnob: naming the matrix, its size and the largest rank.
    """
    if kind_of(config) not in _RANKED:
        return
    for path, layer in layers:
        size = shape_of(layer.get_base_layer())
        ranks = getattr(layer, "r", {})
        rank = (ranks.get(name) if isinstance(ranks, dict) else None) or config.r
        if size and rank > min(size):
            raise BadKnob(
                f"r={rank}: {path} is {size[1]} x {size[0]}, and no update of it has a rank above"
                f" {min(size)}; choose r <= {min(size)}"
            )


def check_virtual(config: Any, model: Model) -> None:
    """Virtual tokens must fit the network, and be of a kind that is the same for every text.

    Raises:
        BadKnob: none, more than the context holds, or a start from a text.
        Mismatch: another kind, or keys and values of another network's shape.
    """
    if not config.is_prompt_learning:
        return
    kind, most = kind_of(config), model.context_tokens - 1
    if kind not in VIRTUAL_TYPES:
        raise Mismatch(
            f"{kind} needs more than virtual tokens (a task number, a loss of its own, tokens that"
            f" stay frozen) and is not served here; choose {', '.join(VIRTUAL_TYPES)}"
        )
    if not config.num_virtual_tokens or not 0 < config.num_virtual_tokens <= most:
        raise BadKnob(
            f"num_virtual_tokens={config.num_virtual_tokens!r}: {model.name!r} has room for 1 to"
            f" {most} in front of a text"
        )
    start = str(getattr(config, "prompt_tuning_init", "")).rpartition(".")[2]
    if start == "TEXT" and not config.inference_mode:
        raise BadKnob(
            "prompt_tuning_init='TEXT': would fetch a tokenizer by its name; choose SAMPLE_VOCAB"
        )
    _check_shape(config, kind, model)
    if config.num_transformer_submodules not in (None, 1):
        raise Mismatch(f"{kind} was made for an encoder and a decoder; {model.name!r} is one stack")


def _check_shape(config: Any, kind: str, model: Model) -> None:
    """What a configuration says of its network must be so of this one."""
    own = copy.deepcopy(config)
    own.num_layers = own.token_dim = own.num_attention_heads = None
    own = _prepare_prompt_learning_config(own, model.network.config)
    by_layer = ("num_layers", "num_attention_heads") if kind == "PREFIX_TUNING" else ()
    for one in ("token_dim", *by_layer):
        given, here = getattr(config, one), getattr(own, one)
        if given is not None and given != here:
            raise Mismatch(
                f"{kind} was made for another base: {one} is {given} there and {here} in"
                f" {model.name!r}; load it on the model that it was trained on"
            )


def check_layer_strength(config: Any, layers: Mapping[int, float]) -> None:
    """Virtual tokens are counted alike in all layers.

    Raises:
        BadKnob: a factor of a single layer.
    """
    for layer, factor in layers.items():
        if config.is_prompt_learning and factor != 1:
            raise BadKnob(
                f"layer {layer}: factor={factor:g}: virtual tokens count alike in all layers; leave"
                " it at 1 and set the strength of the whole adapter"
            )
