"""Fine-tune a mixture on text, its routers' losses taken layer by layer.

*Idea*: next-token loss + balance + z-loss, and what the router's method adds (top-p: the entropy).
Each router term is averaged over the layers after it is computed in each: pooled before that,
layers that collapsed on different experts look balanced.

*Cost*: ``steps`` forward and backward passes; four times the memory of the weights.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from workbench.core.errors import BadInput
from workbench.core.losses import balance_of, router_entropy, router_z_loss
from workbench.core.routing import law
from workbench.models.model import Model
from workbench.models.routers import mixture_routers, router_outputs
from workbench.models.steering import Steering
from workbench.training.plain import Logits, TokenRows, quiet

DIVERGED_NATS = 2.0  # above the first loss


@dataclass(frozen=True)
class MixtureSettings:
    """What is trained, and how long.

    Args:
        steps: of AdamW; a twentieth is warm-up, then the rate falls to zero.
        batch_rows: rows a step.
        learning_rate: peak.
        balance, size: weights of the balance loss and of the z-loss.
        routers_only: leave everything but the routers as it is.
    """

    steps: int = 100
    batch_rows: int = 8
    learning_rate: float = 5e-4
    balance: float = 0.01
    size: float = 1e-3
    routers_only: bool = False
    seed: int = 3


class Step(NamedTuple):
    """Means of one step: loss in nats, balance, router entropy in nats, experts a token."""

    loss_nats: float
    balance: float
    entropy_nats: float
    experts_per_token: float


@dataclass
class Tuning:
    """A fine-tuning as it goes; ``note`` says why it ended early."""

    steps: int = 0
    curve: list[Step] = field(default_factory=list)
    note: str = ""


class _MixtureTrainer(Trainer):
    """The Trainer with the sum of the losses."""

    def __init__(self, *args: Any, method: Any, chosen: MixtureSettings, done: Tuning, **more: Any):
        self.method, self.chosen, self.done = method, chosen, done
        super().__init__(*args, **more)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Next-token loss and the routers' terms."""
        with router_outputs(model) as heard:
            logits = model(inputs["ids"])[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), inputs["ids"][:, 1:].flatten())
        balance, size, more, entropy, used = map(
            _mean, zip(*(self._terms(*output) for output in heard.values()), strict=True)
        )
        self.done.curve.append(Step(*(float(x.detach()) for x in (loss, balance, entropy, used))))
        loss = loss + self.chosen.balance * balance + self.chosen.size * size + more
        return (loss, {}) if return_outputs else loss

    def _terms(self, logits, weights, indices) -> tuple[torch.Tensor, ...]:
        """One layer: balance of the sets really chosen, z-loss, the method's own, two readings."""
        used = (weights > 0).float()
        chosen = torch.zeros_like(logits, dtype=torch.float32).scatter_reduce_(
            1, indices, used.detach(), "amax"
        )
        extra = getattr(self.method, "loss", None)
        own = logits.new_zeros(()) if extra is None else extra(logits)
        return (
            balance_of(law(logits), chosen),
            router_z_loss(logits),
            own,
            router_entropy(logits),
            chosen.sum(-1).mean(),
        )


def _mean(values: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.stack(values).mean()


def finetune(
    model: Model,
    rows: Int[torch.Tensor, "b t"],
    method: Any = None,
    settings: MixtureSettings | None = None,
    *,
    listener: Callable[[Tuning], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Tuning:
    """Train the mixture's own weights under a router's rule; what it learnt stays.

    Args:
        model: a mixture of the caller's own (:meth:`Model.clone` makes one).
        method: whose ``route`` is in force and whose ``loss`` is added; None = as the model routes.
        listener: called after every step.
        stopped: asked after every step; true ends the training, what was learnt is kept.

    Raises:
        BadInput: too little text.
        ModelError: a model without experts.
    """
    settings, done = settings or MixtureSettings(), Tuning()
    if rows.shape[0] < 1 or rows.shape[1] < 8:
        raise BadInput(
            f"training text: {rows.shape[0]} rows of {rows.shape[1]} tokens; give a few hundred"
            " rows of 128"
        )
    gates = mixture_routers(model.network)
    routers = {id(p) for gate in gates.values() for p in gate.parameters()}
    with torch.inference_mode(False), torch.enable_grad():
        for weight in model.network.parameters():
            weight.requires_grad_(not settings.routers_only or id(weight) in routers)
        rule = Steering(model.network, method) if hasattr(method, "loss") else nullcontext()
        try:
            with rule:
                _train(model, rows, method, settings, done, listener, stopped)
        finally:
            model.network.requires_grad_(False).eval()
    return done


def _train(model, rows, method, settings, done, listener, stopped) -> None:
    class Live(TrainerCallback):
        """Feeds the listener; ends the training when told to, or when it diverges."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            done.steps, loss = state.global_step, done.curve[-1].loss_nats
            if not math.isfinite(loss) or loss > done.curve[0].loss_nats + DIVERGED_NATS:
                done.note = (
                    f"Stopped at step {done.steps}: the loss is {loss:.2f} nats (it diverges); use"
                    " a smaller learning rate."
                )
            elif stopped():
                done.note = f"Stopped after {done.steps} of {state.max_steps} steps."
            listener(done)
            control.should_training_stop = control.should_training_stop or bool(done.note)
            return control

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_rows,
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            lr_scheduler_type="linear",
            warmup_steps=max(1, settings.steps // 20),
            logging_strategy="no",
            save_strategy="no",
            **quiet(model, settings.seed),
        )
        trainer = _MixtureTrainer(
            Logits(model.network),
            arguments,
            train_dataset=TokenRows(rows),
            data_collator=lambda batch: {"ids": torch.stack(batch)},
            callbacks=[Live()],
            method=method,
            chosen=settings,
            done=done,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
