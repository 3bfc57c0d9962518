"""What every pruner must satisfy, on a tiny network: exact counts, nothing at ratio 0, exact undo.

Checks are chosen by what a pruner acts on, never by its name.

Example:
    >>> PrunerSuite(make_method("pruner", "magnitude")).check_density()
"""

from __future__ import annotations

import torch

from workbench.core.masks import Pattern, removed_count
from workbench.core.pruning import PATTERNS, Plan, Pruner
from workbench.models.model import Model
from workbench.models.prune import Pruned, prune
from workbench.models.units import matrices, units_of
from workbench.testing.tiny_network import tiny_network

RATIOS = (0.29, 0.7)


class PrunerSuite:
    """The checks of one pruner; each raises AssertionError on a breach.

    Args:
        pruner: under test.
        model: pruned; a tiny Llama by default.
    """

    def __init__(self, pruner: Pruner, model: Model | None = None):
        self.pruner = pruner
        self.model = model or tiny_network(13, layers=3, seed=3)
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randint(0, self.model.vocab_size, (2, 24), generator=generator)

    def patterns(self) -> list[Pattern]:
        """Every pattern that the pruner's units can follow."""
        return [Pattern.parse(text) for text in PATTERNS[self.pruner.acts_on]]

    def made(self, pattern: Pattern, ratio: float) -> Pruned:
        return prune(self.model, self.pruner, Plan(pattern, ratio), self.rows)

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        return self.model.network(input_ids=self.rows, use_cache=False).logits

    def check_density(self) -> None:
        """Exactly the share that was asked for goes, in every scope the pattern names."""
        for pattern in self.patterns():
            for ratio in RATIOS:
                check_counts(self.pruner, pattern, ratio, self.made(pattern, ratio), self.model)

    def check_zeros_are_the_mask(self) -> None:
        """Once applied, the network's zeros are those of the mask and no others."""
        for pattern in self.patterns():
            made = self.made(pattern, 0.5)
            with made.apply(self.model):
                for name, mask in made.masks.weights.items():
                    zeros = matrices(self.model)[name].weight == 0
                    assert torch.equal(zeros, ~mask), f"{name}: zeros and mask differ ({pattern})"

    def check_ratio_zero(self) -> None:
        """Ratio 0 leaves the logits as they are, to the last bit."""
        before = self.logits()
        for pattern in self.patterns():
            with self.made(pattern, 0.0).apply(self.model):
                assert torch.equal(self.logits(), before), f"ratio 0 changed the network: {pattern}"

    def check_undo(self) -> None:
        """Pruning leaves the network alone; what is applied changes it, and undo is bit-exact."""
        before = {name: t.clone() for name, t in self.model.network.state_dict().items()}

        def untouched() -> bool:
            after = self.model.network.state_dict()
            return all(torch.equal(after[name], old) for name, old in before.items())

        logits = self.logits()
        for pattern in self.patterns():
            made = self.made(pattern, 0.5)
            assert untouched(), f"prune changed the network ({pattern})"
            edit = made.apply(self.model)
            if any(not bool(m.all()) for m in {**made.masks.weights, **made.masks.parts}.values()):
                assert not torch.equal(self.logits(), logits), f"nothing was applied ({pattern})"
            edit.undo()
            assert untouched(), f"undo left something behind ({pattern})"

    def check_deterministic(self) -> None:
        """The same network, text and plan give the same masks and weights."""
        for pattern in self.patterns():
            first, second = self.made(pattern, 0.5), self.made(pattern, 0.5)
            assert first.masks == second.masks
            assert all(torch.equal(w, second.weights[n]) for n, w in first.weights.items())

    def check_own_ratios(self) -> None:
        """A layer's own ratio of 0 keeps it whole, and what it keeps is not taken elsewhere."""
        if self.pruner.acts_on == "layers":
            plan = Plan(Pattern("global"), 0.5, dict.fromkeys(range(2), 0.0))
            kept = prune(self.model, self.pruner, plan, self.rows).masks.parts["layers"]
            assert bool(kept[:2].all()), "a protected layer was dropped"
            return
        for pattern in self.patterns():
            plan = Plan(pattern, 0.5, {1: 0.0})
            masks = prune(self.model, self.pruner, plan, self.rows).masks
            whole = {**masks.weights, **masks.parts}
            for unit in units_of(self.model, self.pruner.acts_on):
                if unit.layer == 1:
                    assert bool(whole[unit.name].all()), f"{unit.name} was pruned ({pattern})"


def check_counts(
    pruner: Pruner, pattern: Pattern, ratio: float, made: Pruned, model: Model
) -> None:
    """The counts of one pruning, against the arithmetic of its pattern."""
    masks = {**made.masks.weights, **made.masks.parts}
    what = f"{getattr(pruner, 'name', pruner)} {pattern} {ratio}"
    total = sum(mask.numel() for mask in masks.values())
    removed = sum(int((~mask).sum()) for mask in masks.values())
    if hasattr(pruner, "allocate") and pattern.kind == "layer":
        multiple = getattr(pruner, "multiple", 1)
        slack = 0 if multiple == 1 else multiple * len(masks)
        assert abs(removed - removed_count(total, ratio)) <= slack, f"{what}: {removed} of {total}"
        return
    if pattern.kind == "global":
        wanted = removed_count(total, ratio)
        assert removed == wanted, f"{what}: {removed} of {total} removed, not {wanted}"
        return
    for name, mask in masks.items():
        if pattern.kind == "n_m":
            whole = mask.shape[1] // pattern.of * pattern.of
            groups = mask[:, :whole].reshape(len(mask), -1, pattern.of).sum(-1)
            assert bool((groups == pattern.keep).all()), f"{what}: {name} breaks {pattern}"
            assert bool(mask[:, whole:].all()), f"{what}: {name} cuts an incomplete group"
        elif pattern.kind == "row":
            wanted, found = removed_count(mask.shape[1], ratio), (~mask).sum(1)
            assert bool((found == wanted).all()), f"{what}: {name} rows lose {found.tolist()}"
        else:
            wanted, lost = removed_count(mask.numel(), ratio), int((~mask).sum())
            assert lost == wanted, f"{what}: {name} loses {lost}, not {wanted}"
