"""Blocks that turn their input little lose more, and of each block the quietest neurons."""

from __future__ import annotations

import torch

from workbench.core.method import Paper, knob, method
from workbench.core.pruning import Stats, Unit, heard, shares

STEEPNESS = 13.1  # the authors' 1e4 belongs to sums over 128 x 1024 tokens; this one to means


@method(
    "pruner",
    title="CFSP",
    paper=Paper(
        "CFSP: An Efficient Structured Pruning Framework for LLMs with Coarse-to-Fine Activation"
        " Information",
        2025,
        "2409.13199",
    ),
)
class Cfsp:
    """Remove whole MLP neurons: a budget for each block, then the quietest neurons of each.

    *Idea*: one pass tells both how much each block turns the stream (coarse: blocks that turn it
    little can lose more) and how loud each neuron is (fine). Neurons can really be cut out, so the
    smaller network is faster on any hardware.

    *Paper*: Wang et al., COLING 2025 (arXiv 2409.13199). Coarse: z_l = sigmoid(a (I_l - mean I)),
    the share kept of block l is z_l / mean z times (1 - p), deviations shrunk where a share would
    exceed 1. Fine: the three matrices' normalised weights times ||a_j||.

    *Deviations*: angles are means over tokens, with the constant changed to match (their sums over
    131,072 tokens are divided by 1e4). Of their coarse measures, squared and absolute differences
    are left out; of their fine score, the powers b and c, which are 1 there. ``as_released``
    repeats the authors' code, in which the normalisation cancels: the sum runs over the axis that
    is averaged afterwards, each term is 1/d, and the score is the activation norm alone.
    ``row_normalised`` divides by the sum over neurons, so that weights count. Removed neurons add
    up to the ratio exactly; with ``multiple`` > 1 only to the nearest multiple. Attention is left
    alone, as in the paper. Recovery, with LoRA ranks by importance, is a recipe of its own:
    :mod:`workbench.training.importance_lora`.

    *Cost*: one pass over the calibration text; all statistics are those of the dense network.
    """

    acts_on = "neurons"
    hears = "turns"
    one_shot = True

    steepness: float = knob(
        1.0, low=0.0, high=4.0, step=0.1, help="How much budgets differ; 0 = all blocks alike."
    )
    coarse: str = knob(
        "angle", choices=("angle", "cosine"), help="How a block's turning is measured."
    )
    fine: str = knob(
        "as_released",
        choices=("as_released", "row_normalised"),
        help="Activation norms alone (the authors' code), or with normalised weights.",
    )
    multiple: int = knob(
        1, low=1, high=128, unit="neurons", help="Kept neurons are a multiple of this."
    )

    def score(self, unit: Unit, stats: Stats | None) -> torch.Tensor:
        """Importance of each neuron ``[f]``."""
        norms = heard(stats, unit).norms
        down = unit.tensors["down"].double().abs().T  # [f d]
        up, gate = (unit.tensors[name].double().abs() for name in ("up", "gate"))
        side = 0 if self.fine == "row_normalised" else 1
        loud = down * norms[:, None]
        terms = [one / one.sum(side, keepdim=True).clamp_min(1e-30) for one in (loud, up, gate)]
        return sum(terms).mean(1) * norms

    def allocate(self, units: list[Unit], stats: list[Stats], ratio: float) -> list[int]:
        """Neurons that each block loses."""
        if ratio == 0 or not units:
            return [0] * len(units)
        kept = self._kept_ratios(stats, ratio)
        sizes = [unit.shape[0] for unit in units]
        total = sum(sizes) - int(round(ratio * sum(sizes), 6))
        weights = [share * size for share, size in zip(kept, sizes, strict=True)]
        counts = shares(weights, total, max(sizes))
        if self.multiple > 1:
            counts = [self.multiple * max(1, round(n / self.multiple)) for n in counts]
        return [size - min(size, max(1, n)) for size, n in zip(sizes, counts, strict=True)]

    def _kept_ratios(self, stats: list[Stats], ratio: float) -> list[float]:
        turned = torch.tensor([self._turned(one) for one in stats], dtype=torch.double)
        z = (STEEPNESS * self.steepness * (turned - turned.mean())).sigmoid()
        kept = z / z.mean() * (1 - ratio)
        if float(kept.max()) >= 1:
            mean, most = kept.mean(), kept.max()
            kept = mean + (kept - mean) * (1 - mean) / (most - mean) / 1.05
        return kept.tolist()

    def _turned(self, stats: Stats) -> float:
        return stats.turn / stats.tokens if self.coarse == "angle" else 1 - stats.cosine
