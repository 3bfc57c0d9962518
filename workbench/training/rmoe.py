"""Fine-tune a mixture with a recurrent router, beside its two controls.

*Idea*: what the recurrence itself is worth shows against the same gates with the path from below
set to zero, and what the gates are worth against the plain linear router, all three trained alike.

*Paper*: RMoE, 2024, arXiv 2408.06793.

*Deviations*: fine-tuning from a trained mixture; the paper also pretrains. Balance is taken
layer by layer (the released code pools it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int

from workbench.engine.dials import held_out
from workbench.models.model import Model
from workbench.models.recurrent_gate import RecurrentGates
from workbench.training.moe_finetune import MixtureSettings, Tuning, finetune

ARMS = ("linear", "no recurrence", "recurrent")


@dataclass(frozen=True, eq=False)
class Arm:
    """One way of routing after its training: the model, its gates, the held-out loss."""

    name: str
    model: Model
    gates: RecurrentGates | None
    tuning: Tuning
    loss_nats: float


def train_arm(
    name: str,
    model: Model,
    method: Any,
    rows: Int[torch.Tensor, "b t"],
    held: Int[torch.Tensor, "c t"],
    settings: MixtureSettings | None = None,
    **live: Callable,
) -> Arm:
    """Clone the model, route it as ``name`` says, train, and measure on held-out rows.

    Args:
        name: of :data:`ARMS`.
        method: the recurrent router whose knobs are used.
        live: ``listener`` and ``stopped`` of :func:`finetune`.
    """
    own, gates = model.clone(), None
    seed = (settings or MixtureSettings()).seed
    if name != "linear":
        strength = method.strength if name == "recurrent" else 0.0
        gates = replace(method, strength=strength).install(own.network, seed)
    tuning = finetune(own, rows, None, settings, **live)
    return Arm(name, own, gates, tuning, held_out(own, held)[0])
