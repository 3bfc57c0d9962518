"""What every adapter must satisfy, on a tiny network in double precision.

Checks are chosen by what a method declares (``zero_init``, ``linear``, ``virtual``), never by its
name.

Example:
    >>> suite = AdapterSuite(make_method("adapter", "lora"))
    >>> suite.check_removal()
"""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import torch

from workbench.core.errors import Mismatch
from workbench.models.adapting import Adapters
from workbench.models.model import Model
from workbench.models.updates import deltas
from workbench.testing.tiny_network import tiny_network

NAME = "probe"
TOLERANCE = 1e-9


class AdapterSuite:
    """The checks of one adapter method; each raises AssertionError on a breach.

    Args:
        method: an instance of the family ``adapter``.
        model: a network of its own; changed while a check runs.
        adapters: how adapters are put on (a saboteur brings its own).
    """

    def __init__(self, method: Any, model: Model | None = None, adapters: type = Adapters):
        self.method = method
        self.virtual = getattr(method, "virtual", False)
        self.model = model or tiny_network(5, layers=3, seed=4)
        self.adapters = adapters(self.model)
        self.ids = torch.randint(0, 5, (2, 9), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def logits(self, model: Model | None = None) -> torch.Tensor:
        """Of the network as it is now, ``[b t v]``."""
        return (model or self.model).network(input_ids=self.ids, use_cache=False).logits

    def attach(self, moved: bool = True) -> None:
        """Put the adapter on; ``moved`` gives its tensors other values than it starts with."""
        self.adapters.attach(self.method.config(self.adapters.shapes), NAME)
        if moved:
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for weight in self.adapters.parameters(NAME):
                    noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                    weight.add_(0.3 * noise)

    def check_zero_init(self) -> None:
        """Where it is claimed, attaching changes no logit; anywhere, attaching keeps it finite."""
        before = self.logits()
        self.attach(moved=False)
        after = self.logits()
        assert torch.isfinite(after).all()
        if self.method.zero_init:
            assert torch.equal(after, before), "attaching it changes the logits"

    def check_moves(self) -> None:
        """Its tensors matter: other values, other logits."""
        before = self.logits()
        self.attach()
        assert (self.logits() - before).abs().max() > 1e-3, "its tensors change nothing"

    def check_removal(self) -> None:
        """Taking it off gives the same modules, the same flags and the same bits."""
        network = self.model.network
        modules = {name: id(module) for name, module in network.named_modules()}
        state = {name: value.clone() for name, value in network.state_dict().items()}
        before, mode = self.logits(), self.model.mode
        self.attach()
        self.adapters.set_strength(NAME, 0.5)
        self.adapters.detach()
        assert {name: id(module) for name, module in network.named_modules()} == modules
        after = network.state_dict()
        assert after.keys() == state.keys()
        assert all(torch.equal(after[name], value) for name, value in state.items())
        assert torch.equal(self.logits(), before), "a removed adapter leaves something behind"
        assert self.model.mode == mode and not hasattr(network, "peft_config")
        assert not any(p.requires_grad for p in network.parameters())

    def check_disabled(self) -> None:
        """Off and strength 0 are the base; on again and strength 1 are the adapter, exactly."""
        before = self.logits()
        self.attach()
        full = self.logits()
        self.adapters.set_active([])
        assert torch.equal(self.logits(), before), "off is not the base"
        self.adapters.set_active([NAME])
        self.adapters.set_strength(NAME, 0.0)
        assert torch.equal(self.logits(), before), "strength 0 is not the base"
        self.adapters.set_strength(NAME, 1.0)
        assert torch.equal(self.logits(), full), "strength 1 is not the adapter as it was"

    def check_strength(self) -> None:
        """A constant change at strength s is s times that change; single layers can be left out."""
        if not self.method.linear:
            return
        self.attach()
        whole = deltas(self.adapters, NAME)
        self.adapters.set_strength(NAME, 0.7, {1: 0.0})
        part = deltas(self.adapters, NAME)
        for path, delta in whole.items():
            factor = 0.0 if ".layers.1." in path else 0.7
            assert torch.allclose(part[path], factor * delta, atol=TOLERANCE), path

    def check_merged(self) -> None:
        """A constant change added into the weights gives the same logits; all else refuses."""
        self.attach()
        wanted = self.logits()
        if self.virtual:
            with contextlib.suppress(Mismatch):
                deltas(self.adapters, NAME)
                raise AssertionError("it puts tokens in front, yet it names changes of weights")
            return
        merged = copy.deepcopy(self.model.network)
        tuner_layers = [
            m for m in merged.modules() if hasattr(m, "merge") and hasattr(m, "unmerge")
        ]
        if not self.method.linear:
            assert tuner_layers
            for layer in tuner_layers:
                with contextlib.suppress(Mismatch):
                    layer.merge()
                    raise AssertionError("it claims no constant change, yet it merges")
            return
        plain = copy.deepcopy(self.model.network)
        changes = deltas(self.adapters, NAME)
        self.adapters.detach()
        with torch.no_grad():
            for layer in tuner_layers:
                _merge(layer)
            for path, delta in changes.items():
                self.model.network.get_submodule(path).weight.add_(delta)
            by_peft = merged(input_ids=self.ids, use_cache=False).logits
            before = plain(input_ids=self.ids, use_cache=False).logits
        assert (before - wanted).abs().max() < TOLERANCE
        assert (by_peft - wanted).abs().max() < TOLERANCE, "merged is not unmerged"
        assert (self.logits() - wanted).abs().max() < TOLERANCE, "its updates are not its change"

    def check_parameter_count(self) -> None:
        """The formula counts what is trainable, and nothing else is."""
        self.attach(moved=False)
        wanted = self.method.parameter_count(self.adapters.shapes)
        assert self.adapters.parameter_count(NAME) == wanted
        saved = sum(value.numel() for value in self.adapters.state(NAME).values())
        assert saved == wanted, "what is saved is not what is trained"

    def check_gradient(self) -> None:
        """Training reaches every tensor of the adapter and none of the base."""
        base = {id(weight): name for name, weight in self.model.network.named_parameters()}
        self.attach()
        with self.adapters.train(NAME):
            self.model.network.train()
            logits = self.model.network(input_ids=self.ids, use_cache=False).logits
            logits.square().mean().backward()
            self.model.network.eval()
            touched = {id(p) for p in self.model.network.parameters() if p.grad is not None}
        leaked = [name for key, name in base.items() if key in touched]
        assert not leaked, f"gradient reaches the base: {leaked[:3]}"
        assert touched == {id(weight) for weight in self.adapters.parameters(NAME)}

    def check_saved(self, folder: Path) -> None:
        """Saved and loaded again it gives the same logits, bit for bit."""
        before = self.logits()
        self.attach()
        wanted = self.logits()
        self.adapters.save(NAME, folder)
        self.adapters.detach()
        assert torch.equal(self.logits(), before)
        self.adapters.load(folder, "again")
        assert torch.equal(self.logits(), wanted), "reloaded it is another adapter"

    def check_sessions(self) -> None:
        """Cached decoding through the adapter, in the pass in use, equals the plain forward."""
        self.attach()
        row = self.ids[:1]
        wanted = self.model.network(input_ids=row, use_cache=False).logits[0].detach()
        session = self.model.session()
        session.sync(row[0, :5].tolist())
        got = session.forward(row[0, 5:].tolist()).logits
        assert (got - wanted[5:]).abs().max() < TOLERANCE, self.model.mode
        session.commit([0, 2])
        session.crop(5)
        got = session.forward(row[0, 5:].tolist()).logits
        assert (got - wanted[5:]).abs().max() < TOLERANCE, "after commit and crop"

    def check_virtual(self) -> None:
        """Virtual tokens take their place in the context; nothing else takes any."""
        before = self.model.context_tokens
        self.attach()
        virtual = self.adapters.virtual_keys(NAME)
        count = virtual.layers[0][0].shape[2] if virtual else 0
        assert bool(count) == self.virtual
        assert self.model.context_tokens == before - count
        assert len(self.model.session()) == 0, "virtual tokens are no tokens of the text"
        self.adapters.detach()
        assert self.model.context_tokens == before

    def check_company(self) -> None:
        """A second adapter beside it keeps its own tensors when the first is taken off."""
        self.attach()
        alone = self.logits()
        self.adapters.attach(self.method.config(self.adapters.shapes), "second", seed=5)
        with torch.no_grad():
            for weight in self.adapters.parameters("second"):
                weight.add_(0.2)
        self.adapters.set_active(["second"])
        second = self.logits()
        self.adapters.set_active([NAME])
        assert torch.equal(self.logits(), alone), "the second one is not off"
        self.adapters.set_active([NAME, "second"])
        self.adapters.detach(NAME)
        assert self.adapters.names == ("second",)
        assert torch.equal(self.logits(), second), "the second one suffered from the removal"


def _merge(layer: Any) -> None:
    try:
        layer.merge()
    except Mismatch as refusal:
        raise AssertionError(f"it claims a constant change, yet {refusal}") from None
