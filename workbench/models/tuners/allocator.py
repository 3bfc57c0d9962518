"""Who grows when: scores of growing layers while they are trained, and a budget of ranks.

*Paper*: IncreLoRA, 2023, arXiv 2308.12043, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from workbench.models.tuners.growing import GrowingLayer


class Allocator:
    """Scores every matrix at each step and lets the best grow at intervals.

    A score is EMA(I) x EMA(|I - EMA(I)|), with I = sum |dW * dL/d(dW)| / sqrt(size): how much the
    loss hangs on the update, times how much that wavers.

    Args:
        method: the knobs of ``increlora``.
        layers: those that hold the adapter.
        name: of the adapter.
    """

    def __init__(self, method: Any, layers: Sequence[GrowingLayer], name: str):
        self.method, self.layers, self.name = method, list(layers), name
        self.target = round(method.target_rank * len(self.layers))
        self.mean = [0.0] * len(self.layers)
        self.wavering = [0.0] * len(self.layers)
        self.log: list[tuple[int, list[int]]] = [(0, self.ranks)]
        self._gradient: dict[int, torch.Tensor] = {}
        self._rest()
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
        """Grow at the intervals; what is at or above the k-th score grows, ties as well.

        A matrix without room does not compete, or it would keep others from growing for ever.
        """
        method, total = self.method, sum(self.ranks)
        if step <= method.warmup or step % method.interval or total >= self.target:
            return
        scored = zip(self.scores, self.layers, strict=True)
        growing = [(score, layer) for score, layer in scored if layer.room(self.name)]
        if not growing:
            return
        k = min(method.top, self.target - total, len(growing))
        threshold = sorted((score for score, _ in growing), reverse=True)[k - 1]
        for score, layer in growing:
            if score >= threshold:
                layer.grow(self.name, method.add)
        self._rest()
        self.log.append((step, self.ranks))

    def _rest(self) -> None:
        """Once the budget is spent, also where it is overspent, nothing is trained ahead."""
        if sum(self.ranks) >= self.target:
            for layer in self.layers:
                layer.reserve[self.name] = 0

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

    def close(self) -> None:
        """Listen to no gradient any more."""
        for hook in self._hooks:
            hook.remove()

    def finish(self, config: Any) -> None:
        """Cut what never lived, and write the ranks into the configuration."""
        config.rank_pattern = {layer.path: layer.cut(self.name) for layer in self.layers}
