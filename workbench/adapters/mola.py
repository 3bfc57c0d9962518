"""A mixture of LoRA experts with a router, more experts in higher layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from workbench.core.adapter import TARGETS, TargetShape, chosen, module_names
from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_forms import peft_config
from workbench.models.tuners.mola import balance, loads


def blocks(text: str) -> list[int]:
    """The counts of a text such as ``"2,4,6,8"``.

    Raises:
        BadKnob: what is no list of positive whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise BadKnob(f"mola.experts={text!r}: write whole numbers above 0 with commas, e.g. 1,2,4")
    return [int(part) for part in parts]


def profile(text: str, layers: int) -> list[int]:
    """Experts of each layer from counts of equal blocks of layers, e.g. ``"2,4,6,8"``."""
    counts = blocks(text)
    return [counts[layer * len(counts) // layers] for layer in range(layers)]


class _Balance:
    """Adds the balance loss of the pass just made, and reports who was chosen."""

    def __init__(self, network: torch.nn.Module, name: str, weight: float):
        self.network, self.name, self.weight = network, name, weight

    def extra_loss(self) -> torch.Tensor | None:
        found = balance(self.network, self.name) if self.weight > 0 else None
        return None if found is None else self.weight * found

    def after_backward(self, step: int) -> None:
        """Nothing: the optimiser does it all."""

    def after_step(self, step: int) -> None:
        """Nothing."""

    def report(self) -> dict[str, Any]:
        return {"loads": loads(self.network, self.name)}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing was hung in."""

    def finish(self, config: Any) -> None:
        """Nothing changes its form."""


@method(
    "adapter",
    title="MoLA",
    paper=Paper("Higher Layers Need More LoRA Experts", 2024, "2402.08562", "3"),
)
class Mola:
    """Each token picks a few of several small LoRAs, of which later layers have more.

    *Idea*: one low-rank update for all text is a compromise; a router in front of each adapted
    matrix chooses top-k experts by token, and a fixed profile spends the experts where they help.

    *Paper*: Gao et al. 2024 (arXiv 2402.08562): gates are renormalised after top-k; one router for
    each adapted matrix; balance loss of each layer over all its matrices, summed over layers.

    *Deviations*: k is cut to the number of experts a layer has; the output head counts as the last
    layer. The weight of the balance loss is a knob (published: 0.001, fixed). Defaults are for
    small models; published: r 8, alpha 16, dropout 0.05, experts 2,4,6,8, all linear maps. Padding
    does not occur in training here, so none is counted.
    The experts are computed densely and masked, which is faster at this size. ``merge`` refuses
    where the published code silently does nothing.

    *Cost*: experts x (r (d_in + d_out) + d_in) parameters a matrix; it cannot be merged.
    """

    zero_init = True
    linear = False

    experts: str = knob("1,2,3,4", help="Experts by block of layers, first layers first.")
    top_k: int = knob(2, low=1, high=8, unit="experts", help="Experts that a token uses.")
    r: int = knob(4, low=1, high=64, unit="ranks", help="Rank of each expert.")
    alpha: float = knob(8.0, low=0.5, high=256.0, step=0.5, help="Scaled by alpha / r.")
    dropout: float = knob(0.0, low=0.0, high=0.9, step=0.05, help="Of the experts' input.")
    balance: float = knob(0.01, low=0.0, high=1.0, step=0.001, help="Weight of the balance loss.")
    targets: str = knob("query and value", choices=TARGETS, help="Which matrices are changed.")
    modules: str = knob("", help="Names of modules, with commas; they replace the targets.")

    def check_knobs(self) -> None:
        blocks(self.experts)

    def _profile(self, shapes: Sequence[TargetShape]) -> list[int]:
        return profile(self.experts, 1 + max(shape.layer for shape in shapes))

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """The configuration of our own tuner."""
        wanted = chosen(shapes, self.targets, self.modules)
        return peft_config(
            "MOLA",
            r=self.r,
            alpha=self.alpha,
            experts=self._profile(shapes),
            top_k=self.top_k,
            dropout=self.dropout,
            balance=self.balance,
            target_modules=module_names(shapes, wanted),
        )

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """Sum of N_l (r (d_in + d_out) + d_in)."""
        counts = self._profile(shapes)
        return sum(
            counts[s.layer] * (self.r * (s.d_in + s.d_out) + s.d_in)
            for s in chosen(shapes, self.targets, self.modules)
        )

    def companion(self, network: torch.nn.Module, name: str) -> _Balance:
        """The balance loss."""
        return _Balance(network, name, self.balance)
