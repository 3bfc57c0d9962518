"""A pruning lab on a tiny checkpoint and short texts, and what its tests ask of it."""

from __future__ import annotations

import torch

from widgets.labs.pruning.controller import PruningLab

TEXTS = ["def f(self, x):\n    return self.x + x\n" * 4, "class A:\n    pass\n" * 8]


class TinyLab(PruningLab):
    """On short texts."""

    def texts(self):
        return TEXTS


def settled(lab) -> None:
    assert lab.worker.wait(90), lab.status
    assert lab._error == ""


def weights(lab) -> list[torch.Tensor]:
    return [p.clone() for p in lab.model.network.parameters()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
