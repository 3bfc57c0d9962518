"""Ranks that are handed out while training, to the matrices that turn out to need them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from workbench.core.adapter import TARGETS, TargetShape, chosen, module_names
from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_forms import peft_config
from workbench.models.tuners.growing import GrowingLayer, growing_layers


class Allocator:
    """Scores every matrix at each step and lets the best grow at intervals.

    A score is EMA(I) x EMA(|I - EMA(I)|), with I = sum |dW * dL/d(dW)| / sqrt(size): how much the
    loss hangs on the update, times how much that wavers.
    """

    def __init__(self, method: Increlora, layers: Sequence[GrowingLayer], name: str):
        self.method, self.layers, self.name = method, list(layers), name
        self.target = round(method.target_rank * len(self.layers))
        self.mean = [0.0] * len(self.layers)
        self.wavering = [0.0] * len(self.layers)
        self.log: list[tuple[int, list[int]]] = [(0, self.ranks)]
        self._gradient: dict[int, torch.Tensor] = {}
        self._hooks = [
            layer.register_forward_hook(partial(self._watch, index))
            for index, layer in enumerate(self.layers)
        ]

    @property
    def ranks(self) -> list[int]:
        return [layer.live[self.name] for layer in self.layers]

    def _watch(self, index: int, layer: Any, args: tuple, output: torch.Tensor) -> None:
        """dL/d(dW) is the outer product of the output's gradient and the input."""
        if not output.requires_grad:
            return
        rows = args[0].detach().flatten(0, -2)

        def hear(gradient: torch.Tensor) -> None:
            found = gradient.flatten(0, -2).T @ rows.to(gradient.dtype)
            self._gradient[index] = self._gradient.get(index, 0) + found

        output.register_hook(hear)

    def extra_loss(self) -> torch.Tensor | None:
        """orth x the mean over all A and B of || P P^T - I ||, of what lives or is in reserve."""
        if self.method.orth == 0:
            return None
        parts = []
        for layer in self.layers:
            size = layer.live[self.name] + layer.reserve[self.name]
            for rows in (layer.growing_A[self.name], layer.growing_B[self.name].T):
                kept = rows[:size].float()
                parts.append((kept @ kept.T - torch.eye(len(kept), device=kept.device)).norm())
        return self.method.orth * torch.stack(parts).mean()

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Update both averages from this step's gradients."""
        b1, b2 = self.method.beta1, self.method.beta2
        for index, gradient in self._gradient.items():
            delta = self.layers[index].get_delta_weight(self.name)
            now = float((delta * gradient).abs().sum()) / delta.numel() ** 0.5
            self.mean[index] = b1 * self.mean[index] + (1 - b1) * now
            gap = abs(now - self.mean[index])
            self.wavering[index] = b2 * self.wavering[index] + (1 - b2) * gap
        self._gradient = {}

    @property
    def scores(self) -> list[float]:
        return [mean * gap for mean, gap in zip(self.mean, self.wavering, strict=True)]

    def after_step(self, step: int) -> None:
        """Grow at the intervals; what is at or above the k-th score grows, ties as well."""
        method, total = self.method, sum(self.ranks)
        if step <= method.warmup or step % method.interval or total >= self.target:
            return
        k = min(method.top, self.target - total, len(self.layers))
        scores = self.scores
        threshold = sorted(scores, reverse=True)[k - 1]
        for layer, score in zip(self.layers, scores, strict=True):
            if score >= threshold:
                layer.grow(self.name, method.add)
        if sum(self.ranks) >= self.target:
            for layer in self.layers:
                layer.reserve[self.name] = 0
        self.log.append((step, self.ranks))

    def report(self) -> dict[str, Any]:
        return {
            "ranks": list(self.log),
            "scores": self.scores,
            "modules": [layer.path for layer in self.layers],
        }

    def state(self) -> dict[str, Any]:
        reserve = [layer.reserve[self.name] for layer in self.layers]
        return {"log": self.log, "mean": self.mean, "wavering": self.wavering, "reserve": reserve}

    def restore(self, state: dict[str, Any]) -> None:
        self.log = [(int(step), list(ranks)) for step, ranks in state["log"]]
        self.mean, self.wavering = list(state["mean"]), list(state["wavering"])
        for layer, rank, ahead in zip(self.layers, self.ranks_now, state["reserve"], strict=True):
            layer.grow(self.name, rank - layer.live[self.name])
            layer.reserve[self.name] = ahead

    @property
    def ranks_now(self) -> list[int]:
        """The last entry of the log."""
        return self.log[-1][1]

    def finish(self, config: Any) -> None:
        """Cut what never lived, and write the ranks into the configuration."""
        for hook in self._hooks:
            hook.remove()
        config.rank_pattern = {layer.path: layer.cut(self.name) for layer in self.layers}


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
    drop at each growth. Averages begin when training does.

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
