"""Fine-tune a mixture on text, its routers' losses taken layer by layer.

*Idea*: next-token loss + balance + z-loss, and what the router's method adds (top-p: the entropy).
Each router term is averaged over the layers after it is computed in each: pooled before that,
layers that collapsed on different experts look balanced.

With a folder, a training that was cut short goes on where it was, to the last bit.

*Cost*: ``steps`` forward and backward passes; four times the memory of the weights.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch.nn import functional as F
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from workbench.core.errors import BadInput, ModelError
from workbench.core.inference import inference_mode
from workbench.core.losses import balance_of, router_entropy, router_z_loss
from workbench.core.routing import law
from workbench.models.model import Model
from workbench.models.routers import mixture_routers, router_outputs
from workbench.models.steering import Steering
from workbench.training.checkpoints import PlainTrainer
from workbench.training.plain import Logits, TokenRows, quiet

_CURVE = "curve.json"
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
        save_steps: steps between two checkpoints, where there is a folder for them.
    """

    steps: int = 100
    batch_rows: int = 8
    learning_rate: float = 5e-4
    balance: float = 0.01
    size: float = 1e-3
    routers_only: bool = False
    seed: int = 3
    save_steps: int = 50


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


class _MixtureTrainer(PlainTrainer):
    """The Trainer with the sum of the losses; its checkpoints hold what is trained, no more."""

    def __init__(self, *args: Any, method: Any, chosen: MixtureSettings, done: Tuning, **more: Any):
        self.method, self.chosen, self.done = method, chosen, done
        self.trained: Mapping[str, torch.Tensor] = more.pop("trained")
        super().__init__(*args, **more)

    def kept(self) -> dict[str, torch.Tensor]:
        return dict(self.trained)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        path = Path(output_dir or str(self.args.output_dir)) / _CURVE
        path.write_text(json.dumps(self.done.curve))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        from safetensors.torch import load_file

        folder = Path(resume_from_checkpoint)
        found = load_file(folder / "model.safetensors")
        if {n: w.shape for n, w in found.items()} != {n: w.shape for n, w in self.trained.items()}:
            raise ModelError(
                f"folder={str(folder.parent)!r} holds the training of other weights; choose an"
                " empty folder, or the same router with the same knobs"
            )
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(found[name])
        self.done.curve = [Step(*values) for values in json.loads((folder / _CURVE).read_text())]

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
    trained: Mapping[str, torch.nn.Parameter] | None = None,
    folder: Path | None = None,
    listener: Callable[[Tuning], None] = lambda done: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Tuning:
    """Train the mixture's own weights under a router's rule; what it learnt stays.

    Args:
        model: a mixture of the caller's own (:meth:`Model.clone` makes one).
        method: whose ``route`` is in force and whose ``loss``, where it has one, is added; None =
            as the model routes.
        trained: these weights and no others, by name; None = as the settings say.
        folder: for checkpoints; goes on from the last one there.
        listener: called after every step.
        stopped: asked after every step; true ends the training, what was learnt is kept.

    Raises:
        BadInput: too little text.
        ModelError: a model without experts, or a folder with another training.
    """
    settings, done = settings or MixtureSettings(), Tuning()
    if rows.shape[0] < 1 or rows.shape[1] < 8:
        raise BadInput(
            f"training text: {rows.shape[0]} rows of {rows.shape[1]} tokens; give a few hundred"
            " rows of 128"
        )
    _choose(model, settings, trained)
    with inference_mode(False), torch.enable_grad():
        rule = nullcontext() if method is None else Steering(model.network, method)
        try:
            with rule:
                _train(model, rows, method, settings, done, trained, folder, listener, stopped)
        finally:
            model.network.requires_grad_(False).eval()
    return done


def _choose(model: Model, settings: MixtureSettings, trained: Mapping | None) -> None:
    """Let exactly what is trained have gradients."""
    gates = mixture_routers(model.network).values()
    only = trained.values() if trained is not None else [p for g in gates for p in g.parameters()]
    chosen = {id(p) for p in only}
    everything = trained is None and not settings.routers_only
    for weight in model.network.parameters():
        weight.requires_grad_(everything or id(weight) in chosen)


def _train(model, rows, method, settings, done, trained, folder, listener, stopped) -> None:
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
                control.should_save = folder is not None
            listener(done)
            control.should_training_stop = control.should_training_stop or bool(done.note)
            return control

    last = get_last_checkpoint(str(folder)) if folder is not None and folder.is_dir() else None
    own = {n: p for n, p in model.network.named_parameters() if p.requires_grad}
    with tempfile.TemporaryDirectory() as nowhere:
        trainer = _MixtureTrainer(
            Logits(model.network),
            _arguments(model, settings, nowhere, folder),
            train_dataset=TokenRows(rows),
            data_collator=lambda batch: {"ids": torch.stack(batch)},
            callbacks=[Live()],
            method=method,
            chosen=settings,
            done=done,
            trained=own if trained is None else trained,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last)


def _arguments(model: Model, settings: MixtureSettings, nowhere: str, folder: Path | None) -> Any:
    return TrainingArguments(
        output_dir=str(folder or nowhere),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_rows,
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        lr_scheduler_type="linear",
        warmup_steps=max(1, settings.steps // 20),
        logging_strategy="no",
        save_strategy="no" if folder is None else "steps",
        save_steps=settings.save_steps,
        save_total_limit=1,
        **quiet(model, settings.seed),
    )
