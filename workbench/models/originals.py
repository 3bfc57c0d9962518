"""A network as it was before adapters changed it, and the way back: same modules, same bits."""

from __future__ import annotations

import torch
from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
)


class Originals:
    """Remembers every module, hook and gradient flag of a network.

    Args:
        network: untouched so far.

    *Cost*: references only; :meth:`keep_weights` copies all weights, for those initialisations that
    change the base (PiSSA, OLoRA, OSF and the like).
    """

    def __init__(self, network: nn.Module):
        self.network = network
        self._children = [
            (parent, name, child)
            for parent in network.modules()
            for name, child in parent.named_children()
        ]
        self._names = [(module, set(module._modules)) for module in network.modules()]
        self._flags = [(p, p.requires_grad) for p in network.parameters()]
        self._modes = [(module, module.training) for module in network.modules()]
        self._hooks = [
            (getattr(module, kind), set(getattr(module, kind)))
            for module in network.modules()
            for kind in _HOOKS
        ]
        self._weights: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep_weights(self) -> None:
        """Copy every weight, once, because what follows writes into them."""
        if not self._weights:
            tensors = [*self.network.parameters(), *self.network.buffers()]
            self._weights = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def restore(self) -> None:
        """Put back every module, flag and hook, and the weights that were kept."""
        for parent, name, child in self._children:
            if getattr(parent, name, None) is not child:
                setattr(parent, name, child)
        for parent, names in self._names:
            for name in set(parent._modules) - names:
                delattr(parent, name)
        for hooks, before in self._hooks:
            for key in set(hooks) - before:
                del hooks[key]
        for tensor, value in self._weights:
            tensor.data = value.clone()
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
        for module, training in self._modes:
            module.training = training
        vars(self.network).pop("peft_config", None)
