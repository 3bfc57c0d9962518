"""Fine-tune a mixture with a recurrent router, beside its two controls.

*Idea*: what the recurrence itself is worth shows against the same gates with the path from below
set to zero, and what the gates are worth against the plain linear router, all three trained alike.

*Paper*: RMoE, 2024, arXiv 2408.06793.

*Deviations*: fine-tuning from a trained mixture; the paper also pretrains. Balance is taken
layer by layer (the released code pools it). A *head* is what the gates add and nothing else: its
training leaves the mixture as it is, so one file of 0.1 MB turns a plain mixture into a recurrent
one and back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int

from workbench.engine.dials import held_out
from workbench.models.load import versions
from workbench.models.model import Model
from workbench.models.recurrent_gate import RecurrentGates
from workbench.training.moe_finetune import MixtureSettings, Tuning, finetune

ARMS = ("linear", "no recurrence", "recurrent")
HEAD = "recurrent"
# Only small, new weights learn, so the rate is higher than for a whole mixture.
HEAD_SETTINGS = MixtureSettings(steps=1600, batch_rows=8, learning_rate=3e-3, routers_only=True)


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
    *,
    head_only: bool = False,
    **live: Any,
) -> Arm:
    """Clone the model, route it as ``name`` says, train, and measure on held-out rows.

    Args:
        name: of :data:`ARMS`.
        method: the recurrent router whose knobs are used.
        head_only: train what the gates add and leave the mixture as it is; of ``linear``, which
            adds nothing, the routers.
        live: ``folder``, ``listener`` and ``stopped`` of :func:`finetune`.
    """
    own, gates = model.clone(), None
    settings = settings or MixtureSettings()
    if name != "linear":
        strength = method.strength if name == "recurrent" else 0.0
        gates = replace(method, strength=strength).install(own.network, settings.seed)
    if head_only:
        settings = replace(settings, routers_only=True)
    only = gates.added() if head_only and gates is not None else None
    tuning = finetune(own, rows, None, settings, trained=only, **live)
    return Arm(name, own, gates, tuning, held_out(own, held)[0])


def train_head(
    model: Model,
    method: Any,
    rows: Int[torch.Tensor, "b t"],
    held: Int[torch.Tensor, "c t"],
    folder: Path,
    settings: MixtureSettings = HEAD_SETTINGS,
    **live: Callable,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the card of a head for this mixture; goes on from ``folder``'s checkpoint.

    Args:
        method: the recurrent router whose knobs are used.
        held: rows that the card's losses are measured on, of the head as it is stored (bf16).
        live: ``listener`` and ``stopped`` of :func:`finetune`.
    """
    arm = train_arm(
        HEAD, model, method, rows, held[:1], settings, head_only=True, folder=folder, **live
    )
    assert arm.gates is not None  # a recurrent arm
    tensors = {n: w.detach().bfloat16().float() for n, w in arm.gates.added().items()}
    arm.gates.fill(tensors)
    card = {
        "name": HEAD,
        "target": model.fingerprint,
        "target_name": model.name,
        "parameters": sum(w.numel() for w in tensors.values()),
        "tokens_seen": arm.tuning.steps * settings.batch_rows * rows.shape[1],
        "held_out_tokens": held[:, 1:].numel(),
        "held_out_loss": round(held_out(arm.model, held)[0], 4),
        "held_out_loss_without": round(held_out(model, held)[0], 4),
        "knobs": {"width": method.width, "linear": method.linear},
        "settings": asdict(settings),
        "note": arm.tuning.note,
        "versions": versions(),
        "loss_curve": [[n + 1, round(s.loss_nats, 4)] for n, s in enumerate(arm.tuning.curve)][
            ::10
        ],
    }
    return tensors, card
