"""Adapters on a model's own network, in place: attach, load, weigh, switch, take off.

*Idea*: peft replaces single modules and leaves the network what it was, so sessions, hooks and the
fused walk go on working (virtual tokens change no module at all, sessions begin with them); after
each change the passes are probed again. What was replaced is
remembered, so taking adapters off gives the same modules and the same bits.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from workbench.core import errors
from workbench.core.errors import BadInput, BadKnob, Mismatch, closest
from workbench.models.adapter_checks import (
    check_layer_strength,
    check_ranks,
    check_targets,
    check_virtual,
    kind_of,
    leaves_base_alone,
    outer_name,
    scales,
)
from workbench.models.adapter_files import check_fit, read_adapter, write_adapter
from workbench.models.adapter_holding import fill, hold, make_trainable, tensors_of, to_save
from workbench.models.adapter_strength import MOST_STRENGTH, Attached, Strengths
from workbench.models.anatomy import anatomy_of
from workbench.models.model import Model
from workbench.models.originals import Originals
from workbench.models.probe import choose_mode
from workbench.models.targets import target_shapes
from workbench.models.virtual_tokens import VirtualKeys, VirtualTokens, start_from_words


class Adapters:
    """The adapters of one model.

    Args:
        model: its network is changed in place, and restored by :meth:`detach`.

    Strength s of an adapter means base + s (adapted - base) at every matrix. LoRA and other sums
    have it for free in their scale; elsewhere the base's output is computed once more. Virtual
    tokens (prefix tuning, prompt tuning, p-tuning) are counted s times, alike in all layers.
    """

    def __init__(self, model: Model):
        _ = model.fingerprint  # of the base: heads that belong to it stay usable
        self.model = model
        self._shapes = target_shapes(model.network)
        self._originals: Originals | None = None
        self._probed = (model.mode, model.trees, model.reason)
        self._attached: dict[str, Attached] = {}
        self._strengths = Strengths()

    # ---- reading ---------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._attached)

    @property
    def shapes(self) -> list:
        """Every matrix of the base that can be adapted."""
        return self._shapes

    def config(self, name: str) -> Any:
        return self._known(name).config

    def strength(self, name: str) -> float:
        return self._known(name).strength

    def is_active(self, name: str) -> bool:
        return self._known(name).active

    def _known(self, name: str) -> Attached:
        if name not in self._attached:
            raise BadInput(
                f"adapter={name!r} is not attached.{closest(name, self._attached)} Attached:"
                f" {', '.join(self._attached) or 'none'}"
            )
        return self._attached[name]

    def layers(self, name: str) -> Iterator[tuple[str, Any]]:
        """Path and tuner layer wherever this adapter is."""
        for path, module in self.model.network.named_modules():
            if isinstance(module, BaseTunerLayer) and name in module._all_available_adapter_names():
                yield path, module

    def parameters(self, name: str) -> list[torch.nn.Parameter]:
        """What :meth:`train` makes trainable."""
        with self.train(name):
            return [p for p in self.model.network.parameters() if p.requires_grad]

    def parameter_count(self, name: str) -> int:
        return sum(parameter.numel() for parameter in self.parameters(name))

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """A copy of the adapter's tensors, under the names that peft saves them by."""
        return {outer_name(k): v.detach().clone() for k, v in self._tensors(name).items()}

    def virtual_keys(self, name: str) -> VirtualKeys | None:
        """The keys and values that it puts in front of every text; None where it puts none."""
        if not self.config(name).is_prompt_learning:
            return None
        with self.alone(name):
            return self.model.virtual_keys()

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        return tensors_of(self._known(name), name, set(self._attached) - {name})

    def start(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors it began with; empty for one that came from a file."""
        return self._known(name).start

    # ---- attaching -------------------------------------------------------------------------------

    def attach(self, config: Any, name: str = "adapter", seed: int = 0) -> None:
        """Put a fresh adapter on; several may be on at once.

        Raises:
            BadInput: a name that is taken or contains a dot.
            BadKnob: a rank larger than a matrix, or a target that does not exist.
            Mismatch: a type that peft cannot put on this network.
        """
        config = copy.deepcopy(config)
        config.inference_mode = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._inject(config, name)
            if getattr(config, "starts_from_words", False):
                start_from_words(self.model.network, self._attached[name].holder, name)
        self._attached[name].start = self.state(name)
        self._refresh_or_leave(name)

    def load(self, folder: str | Path, name: str = "adapter") -> None:
        """Put an adapter from a peft folder on.

        Raises:
            ModelError: files that are missing, damaged or pickled.
            Mismatch: an adapter that was made for another base.
        """
        config, tensors = read_adapter(folder)
        self.put(config, tensors, name)

    def put(
        self,
        config: Any,
        tensors: Mapping[str, torch.Tensor],
        name: str,
        start: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Put an adapter with these tensors on; a failure leaves everything as it was."""
        with torch.random.fork_rng(devices=[]):
            self._inject(copy.deepcopy(config), name)
        try:
            check_fit(name, self.state(name), dict(tensors), config, self.model.name)
            self._fill(name, tensors)
        except BaseException:
            self.detach(name)
            raise
        self._attached[name].start = dict(start or {})
        self._refresh_or_leave(name)

    def fill(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite the adapter's tensors with others of the same names and shapes."""
        check_fit(name, self.state(name), dict(tensors), self.config(name), self.model.name)
        self._fill(name, tensors)

    def _fill(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        fill(self._known(name), name, self._tensors(name), tensors)

    def weighted(
        self, names: Sequence[str], weights: Sequence[float], name: str, options: dict[str, Any]
    ) -> None:
        """Attach peft's own weighted combination of LoRAs (``add_weighted_adapter``).

        Raises:
            Mismatch: ways that need equal ranks, and whatever else peft refuses.
        """
        self._check_name(name)
        holder = self._known(names[0]).holder
        try:
            holder.base_model.add_weighted_adapter(list(names), list(weights), name, **options)
        except (ValueError, NotImplementedError) as error:
            raise Mismatch(f"merge: {' '.join(str(error).split())}") from None
        config = holder.peft_config[name]
        if getattr(config, "use_rslora", False):  # its alpha = r means a factor of 1
            config.use_rslora = False
        self._attached[name] = Attached(config, holder)
        state = self.state(name)
        del self._attached[name]
        holder.delete_adapter(name)
        self.put(config, state, name)

    def _check_name(self, name: str) -> None:
        parts = {part for path, _ in self.model.network.named_modules() for part in path.split(".")}
        if not name or "." in name or name in parts:  # an adapter's name becomes part of paths
            raise BadInput(f"name={name!r}: is taken or no name; choose another, without dots")

    def _inject(self, config: Any, name: str) -> None:
        self._check_name(name)
        check_virtual(config, self.model)
        check_targets(config, self.model.network, self._shapes)
        if self._originals is None:
            self._originals = Originals(self.model.network)
        if not leaves_base_alone(config):
            self._originals.keep_weights()
        others = {other: self.state(other) for other in self._attached}
        try:
            self._attached[name] = Attached(
                config, hold(self.model.network, self._attached, config, name)
            )
            check_ranks(config, name, self.layers(name))
        except BaseException as error:
            self._rebuild({other: self._attached[other] for other in others}, others)
            if isinstance(error, errors.WorkbenchError) or not isinstance(error, Exception):
                raise
            words = " ".join(str(error).split())[:300]
            raise Mismatch(f"{kind_of(config)} does not fit {self.model.name!r}: {words}") from None
        entry = self._attached[name]
        entry.scaling = {p: la.scaling[name] for p, la in self.layers(name) if scales(la, name)}

    # ---- taking off ------------------------------------------------------------------------------

    def detach(self, name: str | None = None) -> None:
        """Take one adapter off, or all: modules and weights are those of before, bit for bit."""
        if name is not None:
            self._known(name)
        gone = set(self._attached) if name is None else {name}
        left = {other: self._known(other) for other in self._attached if other not in gone}
        self._rebuild(left, {other: self.state(other) for other in left})
        self._refresh()

    def _rebuild(self, left: dict[str, Attached], states: Mapping[str, Any]) -> None:
        """The untouched network, then what is left on it, in order."""
        self._strengths.clear()
        if self._originals is not None:
            self._originals.restore()
        self._originals, self._attached = None, {}
        for name, old in left.items():
            with torch.random.fork_rng(devices=[]):  # first values are drawn, and overwritten
                self._inject(old.config, name)
            self._fill(name, states[name])
            entry = self._attached[name]
            entry.strength, entry.layers = old.strength, old.layers
            entry.active, entry.start = old.active, old.start

    def _refresh_or_leave(self, name: str) -> None:
        """A network that cannot run with the adapter gets rid of it again."""
        try:
            self._refresh()
        except errors.ModelError as error:
            kind = kind_of(self._attached[name].config)
            self.detach(name)
            raise Mismatch(f"{kind} cannot run here, it is taken off again: {error}") from None

    def _refresh(self) -> None:
        """Strengths, flags, anatomy and the pass that agrees with the network as it is now."""
        model = self.model
        model.network.eval()  # new modules come in training mode, with their dropout on
        self._apply()
        for cached in ("fused", "parameters"):
            vars(model).pop(cached, None)
        if model.anatomy is not None:
            model.anatomy = anatomy_of(model.network)
        if not self._attached:
            model.mode, model.trees, model.reason = self._probed
        elif model.tokenizer is not None:
            choose_mode(model)

    # ---- strength --------------------------------------------------------------------------------

    def set_strength(
        self, name: str, strength: float, layers: Mapping[int, float] | None = None
    ) -> None:
        """How strong an adapter is, and a further factor for single layers.

        Args:
            strength: 0 to 1.5; 0 = the base's outputs, 1 = as trained.
            layers: layer -> factor, 0 to 1.5; what is not named has 1.
        """
        for value in (strength, *(layers or {}).values()):
            if not 0 <= value <= MOST_STRENGTH:
                raise BadKnob(f"strength={value!r}: must lie in [0, {MOST_STRENGTH}]")
        entry = self._known(name)
        check_layer_strength(entry.config, layers or {})
        entry.strength, entry.layers = float(strength), dict(layers or {})
        self._apply()

    def set_active(self, names: Sequence[str]) -> None:
        """Exactly these are on; what is off costs nothing and is exactly the base."""
        for name in names:
            self._known(name)
        for name, entry in self._attached.items():
            entry.active = name in names
        self._apply()

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Inside, this adapter is on and no other."""
        before = [other for other, entry in self._attached.items() if entry.active]
        self.set_active([name])
        try:
            yield
        finally:
            self.set_active(before)

    def _apply(self) -> None:
        self._strengths.apply(self.model.network, self._attached)
        if virtual := VirtualTokens.of(self.model.network):
            virtual.set({n: a.strength * a.active for n, a in self._attached.items()})

    # ---- training --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def train(self, name: str) -> Iterator[None]:
        """Inside, this adapter alone is trainable; afterwards nothing is."""
        entry, network = self._known(name), self.model.network
        network.requires_grad_(False)
        try:
            make_trainable(entry, name)
            yield
        finally:
            network.requires_grad_(False)
            for parameter in network.parameters():
                parameter.grad = None

    def save(self, name: str, folder: str | Path) -> Path:
        """Write a folder that peft loads (types of ours: once this module is imported)."""
        config, tensors = to_save(self._known(name), name, self.state(name))
        config.base_model_name_or_path = self.model.name
        config.task_type, config.inference_mode = "CAUSAL_LM", True
        return write_adapter(folder, config, tensors)
