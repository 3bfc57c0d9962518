"""Ranks that are handed out while training, to the matrices that turn out to need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from workbench.core.adapter import TARGETS, TargetShape, chosen, module_names
from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_forms import peft_config
from workbench.models.tuners.allocator import Allocator
from workbench.models.tuners.growing import growing_layers


@method(
    "adapter",
    title="IncreLoRA",
    paper=Paper("IncreLoRA: Incremental Parameter Allocation Method", 2023, "2308.12043", "3"),
)
class Increlora:
    """Start every matrix at rank 1 and give further ranks to those with the highest score.

    *Idea*: which layers need rank is not known before training, but it shows while training; the
    next rank of each matrix is trained ahead, so that growing is smooth.

    *Paper*: Zhang et al. 2023 (arXiv 2308.12043): SVD form B (E * A), scores by matrix, a reserve
    with gain 1e-5, orthogonality loss, growth of the top matrices at intervals.

    *Deviations*: tensors for ``most`` ranks exist from the start and sleep behind a gain of 0, so
    no optimiser learns of growth; a rank that wakes meets an optimiser whose step count runs
    already. The reserve acts in training passes only, so an untrained adapter is exactly the base.
    ``rescale`` off keeps alpha / r of the start; the published alpha / live rank makes the update
    drop at each growth. The reserve rests also where ties overspend the budget (the published code
    stops it only where the budget is met exactly), and scores are kept on after that, for the
    pictures. A matrix whose room is used up does not compete. Orthogonality is that of whole A and
    B, as in the paper's formula; the published code takes each grown rank alone, which asks for
    length 1 only. Defaults are for hundreds of steps on small models; published: alpha 32, top 3 or
    9, add half the target, interval and warm-up 100 to 1000, all linear maps.

    *Cost*: most (d_in + d_out + 1) parameters a matrix while training, rank (d_in + d_out + 1)
    afterwards; a [d_out d_in] gradient product a matrix and step.
    """

    zero_init = True
    linear = True

    target_rank: float = knob(4.0, low=1.0, high=64.0, step=0.5, help="Average rank at the end.")
    start: int = knob(1, low=1, high=16, unit="ranks", help="Rank of each matrix at the start.")
    add: int = knob(1, low=1, high=8, unit="ranks", help="Ranks that a matrix gains at once.")
    top: int = knob(4, low=1, high=64, unit="matrices", help="How many may grow at an interval.")
    most: int = knob(16, low=2, high=128, unit="ranks", help="Room of each matrix.")
    warmup: int = knob(20, low=0, high=10000, unit="steps", help="No growth before this.")
    interval: int = knob(8, low=1, high=1000, unit="steps", help="Between two growths.")
    beta1: float = knob(0.85, low=0.0, high=0.999, step=0.001, help="Average of the importance.")
    beta2: float = knob(0.85, low=0.0, high=0.999, step=0.001, help="Average of its wavering.")
    orth: float = knob(0.1, low=0.0, high=1.0, step=0.01, help="Weight of orthogonality.")
    alpha: float = knob(8.0, low=0.5, high=256.0, step=0.5, help="Scaled by alpha / rank.")
    advance: bool = knob(True, help="Train the next rank of each matrix ahead.")
    rescale: bool = knob(False, help="Divide alpha by the live rank, as published.")
    targets: str = knob("query and value", choices=TARGETS, help="Which matrices are changed.")
    modules: str = knob("", help="Names of modules, with commas; they replace the targets.")

    def check_knobs(self) -> None:
        if not self.start <= self.target_rank <= self.most:
            raise BadKnob(
                f"increlora.target_rank={self.target_rank}: must lie between start={self.start} and"
                f" most={self.most}"
            )

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """The configuration of our own growing tuner."""
        wanted = chosen(shapes, self.targets, self.modules)
        return peft_config(
            "GROWING",
            r=self.start,
            most=min(self.most, *(min(s.d_in, s.d_out) for s in wanted)),
            alpha=self.alpha,
            reserve=self.add if self.advance else 0,
            rescale=self.rescale,
            target_modules=module_names(shapes, wanted),
        )

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """Sum of room (d_in + d_out + 1): what is there while it trains."""
        wanted = chosen(shapes, self.targets, self.modules)
        room = min(self.most, *(min(s.d_in, s.d_out) for s in wanted))
        return sum(room * (s.d_in + s.d_out + 1) for s in wanted)

    def companion(self, network: torch.nn.Module, name: str) -> Allocator:
        """The allocator."""
        return Allocator(self, growing_layers(network, name), name)
