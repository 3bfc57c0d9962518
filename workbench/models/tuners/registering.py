"""How a tuner of our own becomes known to peft."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn

from workbench.core.errors import Mismatch


def register(name: str, config: type, tuner: type) -> None:
    """Add a type to peft's enumeration and its tables; nothing happens the second time.

    ``register_peft_method`` refuses a name that the enumeration does not hold, and an enumeration
    with members cannot be subclassed: the member is made by hand.
    """
    label = name.upper()
    if label in PeftType._member_map_:
        return
    member = str.__new__(PeftType, label)
    member._name_ = member._value_ = label
    PeftType._member_map_[label] = member
    PeftType._member_names_.append(label)
    PeftType._value2member_map_[label] = member
    type.__setattr__(PeftType, label, member)
    register_peft_method(name=name, config_cls=config, model_cls=tuner)


@dataclass
class LinearConfig(PeftConfig):
    """What tuners of linear maps share; the names are peft's."""

    target_modules: Any = field(
        default=None, metadata={"help": "Names of the modules, or a regular expression."}
    )
    exclude_modules: Any = field(default=None, metadata={"help": "Names of modules to leave out."})
    modules_to_save: Any = field(default=None, metadata={"help": "Further modules to train whole."})
    layers_to_transform: Any = field(default=None, metadata={"help": "Numbers of the layers."})
    layers_pattern: Any = field(default=None, metadata={"help": "Name of the list of layers."})
    alpha: float = field(default=16.0, metadata={"help": "The update is scaled by alpha / rank."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))


class LinearTuner(BaseTuner):
    """Replaces each targeted ``nn.Linear`` by the tuner's own layer."""

    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - peft's attribute
    tuner_layer_cls: type[Any]

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config, current_key)
            return
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(base, nn.Linear):
            raise Mismatch(
                f"target {current_key!r} is a {type(base).__name__}; this adapter changes"
                " nn.Linear only, choose other targets or LoRA"
            )
        made = self.tuner_layer_cls(target)
        made.update_layer(adapter_name, peft_config, current_key)
        self._replace_module(parent, target_name, made, target)


class LinearLayer(nn.Module, BaseTunerLayer):
    """A linear map with named adapters beside it; ``scaling`` holds a factor for each."""

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer = base_layer
        plain = self.get_base_layer()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.scaling: dict[str, float] = {}
        self.merged_adapters = []

    @abstractmethod
    def update_layer(self, adapter_name: str, config: Any, path: str) -> None:
        """Make the parameters of one more adapter; ``path`` names the module in the network."""

    @abstractmethod
    def update(self, adapter_name: str, x: torch.Tensor) -> torch.Tensor:
        """What one adapter adds to the output; ``[... d_in]`` -> ``[... d_out]``."""

    def settle(self, adapter_name: str) -> None:
        """Move new parameters to the base's device and make the adapter active."""
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.scaling:
                result = result + self.update(name, x).to(result.dtype)
        return result


def uniform_(tensor: torch.Tensor) -> torch.Tensor:
    """Kaiming-uniform with a = sqrt(5), as nn.Linear and peft's LoRA start their A."""
    for part in tensor if tensor.dim() == 3 else (tensor,):
        nn.init.kaiming_uniform_(part, a=math.sqrt(5))
    return tensor
