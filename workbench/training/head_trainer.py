"""Train a head beside a frozen target on transformers' Trainer: progress, stop, resume, a card.

Checkpoints hold no pickles: weights and optimiser moments are safetensors, the rest is JSON.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from workbench.training.checkpoints import PlainTrainer
from workbench.training.features import Batch, Features
from workbench.training.plain import quiet


class Task(Protocol):
    """What differs from head to head."""

    name: str
    taps: tuple[str, ...]

    def build(self, model) -> nn.Module: ...

    def loss(self, model, head: nn.Module, batch: Batch) -> torch.Tensor: ...

    def measure(self, model, head: nn.Module, features: Features) -> dict[str, Any]: ...


@dataclass(frozen=True)
class HeadSettings:
    """How long and how fast.

    Args:
        epochs: passes over the rows.
        batch_rows: rows a step.
        learning_rate: peak, after a warm-up of 3 %; then cosine to a tenth.
        save_steps: steps between checkpoints.
    """

    epochs: float = 1.0
    batch_rows: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    save_steps: int = 100
    seed: int = 11


@dataclass
class Progress:
    """The live view of a training: steps, loss curve as (tokens, loss), seconds."""

    step: int = 0
    steps: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def eta_s(self) -> float:
        return self.seconds / max(1, self.step) * (self.steps - self.step)


class _Rows(Dataset):
    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class _Live(TrainerCallback):
    """Feeds the listener after every step and ends the training where it is told to."""

    def __init__(self, progress: Progress, tokens: int, listener, stopped):
        self.progress, self.tokens = progress, tokens
        self.listener, self.stopped = listener, stopped
        self.began = time.monotonic()

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic() - self.progress.seconds
        self.progress.steps = state.max_steps

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            point = (state.global_step * self.tokens, round(float(logs["loss"]), 4))
            self.progress.curve.append(point)

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.step = state.global_step
        self.progress.seconds = time.monotonic() - self.began
        self.listener(self.progress)
        if self.stopped():
            control.should_training_stop = control.should_save = True
        return control


class HeadTrainer(PlainTrainer):
    """The Trainer with a task's loss, over rows that are fetched by index, without pickles."""

    def __init__(self, *args, task: Task, target, features: Features, **kwargs):
        super().__init__(*args, **kwargs)
        self.task, self.target, self.features = task, target, features

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The task's loss on the rows of this step."""
        torch.manual_seed(self.args.seed + self.state.global_step)  # noise too is of the step alone
        batch = self.features.batch(inputs["rows"].cpu().numpy(), self.args.device)
        loss = self.task.loss(self.target, model, batch)
        return (loss, {}) if return_outputs else loss


def train_head(
    task: Task,
    model,
    features: Features,
    settings: HeadSettings,
    folder: Path,
    listener: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, Progress]:
    """Train the task's head, going on from the last checkpoint in ``folder``.

    Args:
        model: the frozen target, whose embedding and LM head are used as they are.
        listener: called after every step.
        stopped: asked after every step; true ends the training with a checkpoint.

    Returns:
        The head and its progress.
    """
    torch.manual_seed(settings.seed)
    head = task.build(model)
    row_tokens = features.rows.shape[1]
    progress = Progress()
    steps = math.ceil(len(features) / settings.batch_rows * settings.epochs)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_rows,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=max(1, steps // 30),
        logging_steps=max(1, min(10, steps // 20)),
        save_steps=settings.save_steps,
        save_total_limit=1,
        **quiet(model, settings.seed),
    )
    trainer = HeadTrainer(
        head,
        arguments,
        train_dataset=_Rows(len(features)),
        data_collator=lambda rows: {"rows": torch.tensor(rows)},
        callbacks=[_Live(progress, settings.batch_rows * row_tokens, listener, stopped)],
        task=task,
        target=model,
        features=features,
    )
    trainer.remove_callback(_printing())
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last:
        _take_up(progress, Path(last))
    trainer.train(resume_from_checkpoint=last)
    return trainer.model.eval(), progress


def _printing() -> type:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def _take_up(progress: Progress, checkpoint: Path) -> None:
    """The curve and the step of an earlier part of this training."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    progress.step = state["global_step"]


def head_card(
    task: Task, model, settings: HeadSettings, progress: Progress, measured: dict[str, Any], head
) -> dict[str, Any]:
    """Everything that must be known to trust or repeat a head."""
    from workbench.models.load import versions

    tokens = progress.curve[-1][0] if progress.curve else 0
    return {
        "name": task.name,
        "target": model.fingerprint,
        "target_name": model.name,
        "parameters": sum(p.numel() for p in head.parameters()),
        "tokens_seen": tokens,
        "seconds": round(progress.seconds, 1),
        **measured,
        "settings": asdict(settings),
        "versions": versions(),
        "loss_curve": progress.curve,
    }
