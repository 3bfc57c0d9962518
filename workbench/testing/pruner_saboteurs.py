"""Pruners that are wrong on purpose, one classic mistake each; the suite must catch them all."""

from __future__ import annotations

from collections.abc import Callable

import torch

from workbench.core.masks import Pattern
from workbench.core.pruning import Stats, Unit
from workbench.models.masking import Edit
from workbench.models.prune import Pruned
from workbench.testing.pruner_suite import PrunerSuite


class _Wrong:
    acts_on, hears, one_shot = "weights", "norms", False

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        return unit.weight.float().abs()


class OffByOne(_Wrong):
    """The usual threshold: everything not above the k-th score goes, which is one too many."""

    name = "off_by_one"

    def prune(
        self, unit: Unit, stats: Stats | None, pattern: Pattern, ratio: float, mask: object = None
    ) -> tuple[torch.Tensor, None]:
        scores = self.score(unit, stats)
        threshold = scores.flatten().sort().values[int(scores.numel() * ratio)]
        return scores > threshold, None


class Leaks(_Wrong):
    """Its corrected weights are not the network's even where nothing was to be pruned."""

    name = "leaks"

    def prune(
        self, unit: Unit, stats: Stats | None, pattern: Pattern, ratio: float, mask: object = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        unit.weight.mul_(1 + 1e-6)  # in place: the caller's network
        return torch.ones(unit.shape, dtype=torch.bool), unit.weight.clone()


class Random(_Wrong):
    """Another mask every time."""

    name = "random"
    hears = ""

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        return torch.rand(unit.shape)


class ForgettingEdit(Edit):
    """Undo by adding back what was taken off: rounding stays behind."""

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, old in self._before.values():
            tensor.add_((old - tensor) * (1 + 1e-7))
        self._before = {}


class ForgettingSuite(PrunerSuite):
    """The suite on prunings whose undo is the forgetting one."""

    def made(self, pattern: Pattern, ratio: float) -> Pruned:
        made = super().made(pattern, ratio)

        class Forgetting(Pruned):
            def apply(self, model, edit=None):
                return super().apply(model, ForgettingEdit())

        return Forgetting(made.masks, made.weights)


CAUGHT_BY: list[tuple[type, Callable[[PrunerSuite], None]]] = [
    (OffByOne, PrunerSuite.check_density),
    (Leaks, PrunerSuite.check_undo),
    (Random, PrunerSuite.check_deterministic),
]
