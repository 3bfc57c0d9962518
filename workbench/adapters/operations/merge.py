"""Several LoRAs in one, by peft's own ways of combining them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from workbench.core.errors import BadKnob, Mismatch
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_checks import kind_of
from workbench.models.adapting import Adapters
from workbench.models.updates import deltas

WAYS = (
    "cat",
    "svd",
    "ties_svd",
    "dare_linear_svd",
    "dare_ties_svd",
    "magnitude_prune_svd",
    "linear",
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
)


@method(
    "operation",
    title="Merge (peft)",
    paper=Paper("TIES-Merging: Resolving Interference When Merging Models", 2023, "2306.01708"),
)
class Merge:
    """A weighted sum of LoRAs, or one of peft's sparser relatives of it.

    *Idea*: updates can be added. ``cat`` puts the thin matrices side by side and is exactly the
    weighted sum; the ``_svd`` ways work on the whole update and cut it back to a rank.

    *Deviations*: none; peft's ``add_weighted_adapter``. ``linear`` and the other ways without svd
    combine A with A and B with B: the product then holds cross terms and is *not* the average of
    the models. The result says how far it is from the weighted sum. rsLoRAs come out as a plain
    LoRA (peft keeps their factor and so misses the sum); DoRAs, whose updates are no sum of thin
    products, are refused.

    *Cost*: ``cat`` is free and its rank is the sum of ranks; a decomposition a matrix elsewhere.
    """

    many = True

    way: str = knob("cat", choices=WAYS, help="peft's combination type.")
    weights: str = knob("", help="One number an adapter, with commas; empty = 1 / count each.")
    density: float = knob(0.5, low=0.01, high=1.0, step=0.01, help="Kept by ties, dare, prune.")
    svd_rank: int = knob(0, low=0, high=256, unit="ranks", help="Of the svd ways; 0 = the sum.")
    seed: int = knob(1, low=0, high=10000, help="Of what dare drops.")

    def _weights(self, count: int) -> list[float]:
        if not self.weights.strip():
            return [1.0 / count] * count
        try:
            found = [float(part) for part in self.weights.split(",")]
        except ValueError:
            raise BadKnob(f"merge.weights={self.weights!r}: write numbers with commas") from None
        if len(found) != count:
            raise BadKnob(f"merge.weights={self.weights!r}: {len(found)} for {count} adapters")
        return found

    def combine(self, adapters: Adapters, names: Sequence[str], name: str) -> dict[str, Any]:
        """Attach the merged adapter; ``error`` is its distance from the weighted sum."""
        for one in names:
            config = adapters.config(one)
            if kind_of(config) != "LORA" or config.use_dora:
                own = " but a DoRA" if kind_of(config) == "LORA" else ""
                raise Mismatch(
                    f"adapter={one!r} is no LoRA{own}; merge takes LoRAs, breadcrumbs takes any"
                    " adapter that changes matrices"
                )
        weights = self._weights(len(names))
        configs = [adapters.config(one) for one in names]
        ranks = [max(config.r, *config.rank_pattern.values(), 0) for config in configs]
        most = min(min(change.shape) for one in names for change in deltas(adapters, one).values())
        options: dict[str, Any] = {"combination_type": self.way}
        if self.way.endswith("svd"):
            options["svd_rank"] = min(self.svd_rank or sum(ranks), most)
        elif self.way == "cat" and sum(ranks) > most:
            raise Mismatch(
                f"merge.way='cat': the ranks add up to {sum(ranks)}, more than the {most} of the"
                " smallest matrix; choose way='svd', which keeps so many and tells the error"
            )
        if self.way not in ("cat", "svd", "linear"):
            options["density"] = self.density
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            adapters.weighted(list(names), weights, name, options)
        error = _distance(adapters, names, weights, name)
        facts: dict[str, Any] = {"error": error, "rank": adapters.config(name).r}
        if "svd" not in self.way and self.way != "cat":
            facts["warning"] = (
                f"{self.way} combines A with A and B with B, so its update is {error:.0%} away from"
                " the weighted sum; cat is exactly that sum"
            )
        return facts


def _distance(
    adapters: Adapters, names: Sequence[str], weights: Sequence[float], name: str
) -> float:
    """|| merged - weighted sum || / || weighted sum || over all matrices."""
    wanted: dict[str, torch.Tensor] = {}
    for one, weight in zip(names, weights, strict=True):
        for path, change in deltas(adapters, one).items():
            wanted[path] = wanted.get(path, torch.zeros_like(change)) + weight * change
    made = deltas(adapters, name)
    gap = sum(float((made[path] - wanted[path]).square().sum()) for path in wanted)
    size = sum(float(change.square().sum()) for change in wanted.values())
    return (gap / size) ** 0.5 if size else 0.0
