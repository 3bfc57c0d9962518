"""Train one attached adapter on transformers' Trainer: curves, stop, resume, a way back.

*Idea*: what is being trained is looked at while it is trained: the loss on text that it does not
learn from, and the acceptance of the draft model, which knows nothing of the adapter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from workbench.core.errors import ModelError
from workbench.core.inference import inference_mode
from workbench.engine.dials import held_out
from workbench.models.adapting import Adapters
from workbench.models.model import Model
from workbench.training.checkpoints import PlainTrainer
from workbench.training.head_trainer import Progress
from workbench.training.plain import Logits, TokenRows, quiet
from workbench.training.texts import Texts

DIVERGED_NATS = 1.0  # the mean loss of the last steps above that of the first
_RECENT = 6
_ADAPTER, _PROGRESS = "adapter", "progress.json"


@dataclass(frozen=True)
class AdapterSettings:
    """How long and how fast.

    Args:
        steps: of the optimiser.
        batch_rows: rows a step.
        learning_rate: peak, after a warm-up of a twentieth; then cosine to a tenth.
        measure_steps: steps between two measurements.
        measure_rows: held-out rows of a measurement.
        save_steps: steps between two checkpoints.
        temperature: of the acceptance.
    """

    steps: int = 200
    batch_rows: int = 8
    learning_rate: float = 3e-3
    measure_steps: int = 20
    measure_rows: int = 16
    save_steps: int = 50
    temperature: float = 0.8
    clip_norm: float = 1.0
    seed: int = 11


class Measured(NamedTuple):
    """Held-out loss (nats a token), top-1 rate and acceptance of the draft after some steps."""

    step: int
    loss_nats: float
    top1_ratio: float
    acceptance_ratio: float | None


@dataclass
class AdapterProgress(Progress):
    """The live view of a training: ``curve`` holds (step, loss of its rows)."""

    measured: list[Measured] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    note: str = ""


class _AdapterTrainer(PlainTrainer):
    """The Trainer with the next-token loss and the method's own term; saves the adapter only."""

    def __init__(self, *args: Any, run: _Run, **kwargs: Any):
        self.run = run
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean cross-entropy of the rows, and what the method adds."""
        torch.manual_seed(self.args.seed + self.state.global_step)  # dropout is of the step alone
        logits = model(inputs["ids"])[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), inputs["ids"][:, 1:].flatten())
        self.run.loss = float(loss.detach())
        more = self.run.companion.extra_loss() if self.run.companion else None
        loss = loss if more is None else loss + more
        return (loss, {}) if return_outputs else loss

    def kept(self) -> dict[str, torch.Tensor]:
        return self.run.adapters.state(self.run.name)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        self.run.write(Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        self.run.read(Path(resume_from_checkpoint))


class _Live(TrainerCallback):
    """Passes the Trainer's moments on to the run."""

    def __init__(self, run: _Run):
        self.run = run

    def on_train_begin(self, args, state, control, **kwargs):
        self.run.began(state.global_step)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.run.companion:
            self.run.companion.after_backward(state.global_step + 1)

    def on_step_end(self, args, state, control, **kwargs):
        if not self.run.stepped(state.global_step):
            control.should_training_stop = control.should_save = True
        return control


class _Run:
    """One training: its adapter, its measurements, and the way back where it goes astray."""

    def __init__(self, adapters, name, method, texts, settings, draft, listener, stopped):
        from time import monotonic

        self.adapters, self.name, self.settings = adapters, name, settings
        self.draft, self.listener, self.stopped = draft, listener, stopped
        self.rows = texts.held_out[: settings.measure_rows]
        make = getattr(method, "companion", None)
        self.companion = make(adapters.model.network, name) if make else None
        self.progress = AdapterProgress(steps=settings.steps)
        self.loss, self.clock = 0.0, monotonic
        self.best: tuple[float, int, dict[str, torch.Tensor]] | None = None

    def ended(self) -> None:
        """However it ended: what was learnt gets its final form, and nobody listens any more."""
        if self.companion:
            self.companion.close()
            if self.progress.step:
                self.companion.finish(self.adapters.config(self.name))

    def began(self, step: int) -> None:
        self.progress.step = step
        self.start = self.clock() - self.progress.seconds
        if not self.progress.measured:
            self.measure(step)

    def measure(self, step: int) -> None:
        """Look at the adapter as it is, and remember it where it is the best so far."""
        network = self.adapters.model.network
        network.eval()
        temperature = self.settings.temperature
        found = held_out(self.adapters.model, self.rows, self.draft, temperature)
        network.train()
        self.progress.measured.append(Measured(step, *found))
        if math.isfinite(found[0]) and (self.best is None or found[0] < self.best[0]):
            self.best = (found[0], step, self.adapters.state(self.name))

    def stepped(self, step: int) -> bool:
        """After a step; False ends the training."""
        progress = self.progress
        progress.step, progress.seconds = step, self.clock() - self.start
        progress.curve.append((step, self.loss))
        if self.companion:
            self.companion.after_step(step)
            progress.report = self.companion.report()
        if self.diverged():
            self.take_back(step)
        elif step % self.settings.measure_steps == 0 or step == progress.steps:
            self.measure(step)
        self.listener(progress)
        return not (progress.note or self.stopped())

    def diverged(self) -> bool:
        losses = [loss for _, loss in self.progress.curve]
        if not math.isfinite(losses[-1]):
            return True
        recent = losses[-_RECENT:]
        first = losses[: max(1, _RECENT // 2)]
        far = sum(recent) / len(recent) > sum(first) / len(first) + DIVERGED_NATS
        return len(losses) >= _RECENT and far

    def take_back(self, step: int) -> None:
        """The best adapter that was measured takes the place of the one that went astray."""
        assert self.best is not None  # measured before the first step
        loss, when, tensors = self.best
        self.adapters.fill(self.name, tensors)
        self.progress.note = (
            f"The training diverged at step {step} (loss {self.loss:.2f} nats, held out {loss:.2f}"
            f" at step {when}): the adapter is that of step {when} again. A smaller learning rate"
            " avoids this."
        )

    def write(self, folder: Path) -> None:
        """What is needed to go on, beside the adapter's tensors."""
        state = self.companion.state() if self.companion else {}
        progress = {"curve": self.progress.curve, "measured": self.progress.measured}
        said = {**progress, "seconds": self.progress.seconds, "companion": state}
        (folder / _PROGRESS).write_text(json.dumps(said))

    def read(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ModelError: a checkpoint of another adapter.
        """
        from safetensors.torch import load_file

        said = json.loads((folder / _PROGRESS).read_text())
        tensors = load_file(folder / "model.safetensors")
        own = self.adapters.state(self.name)
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in tensors.items()}:
            raise ModelError(
                f"folder={str(folder.parent)!r} holds the training of another adapter; choose an"
                " empty folder, or the same method with the same knobs"
            )
        if self.companion:
            self.companion.restore(said["companion"])
        self.adapters.fill(self.name, tensors)
        self.progress.curve = [(int(step), float(loss)) for step, loss in said["curve"]]
        self.progress.measured = [Measured(*values) for values in said["measured"]]
        self.progress.seconds = said["seconds"]
        self.best = (self.progress.measured[-1].loss_nats, self.progress.measured[-1].step, tensors)


def train_adapter(
    adapters: Adapters,
    name: str,
    method: Any,
    texts: Texts,
    settings: AdapterSettings,
    folder: Path,
    draft: Model | None = None,
    listener: Callable[[AdapterProgress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> AdapterProgress:
    """Train an attached adapter, going on from the last checkpoint in ``folder``.

    A training whose loss is not finite, or a nat above where it began, is taken back to the best
    adapter that was measured, and ``note`` says so.

    Args:
        method: the adapter's method; what it does beside the optimiser is part of the training.
        draft: whose acceptance is measured along.
        listener: called after every step; may wait, for a pause.
        stopped: asked after every step; true ends the training with a checkpoint.

    Raises:
        ModelError: ``folder`` holds the training of another adapter.
    """
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    run = _Run(adapters, name, method, texts, settings, draft, listener, stopped)
    try:
        with inference_mode(False), torch.enable_grad(), adapters.train(name):
            trainer = _AdapterTrainer(
                Logits(adapters.model.network),
                _arguments(settings, folder, adapters.model),
                train_dataset=TokenRows(texts.train),
                data_collator=lambda rows: {"ids": torch.stack(rows)},
                callbacks=[_Live(run)],
                run=run,
            )
            trainer.remove_callback(PrinterCallback)
            try:
                trainer.train(resume_from_checkpoint=last)
            finally:
                adapters.model.network.eval()
    finally:
        run.ended()
    return run.progress


def _arguments(settings: AdapterSettings, folder: Path, model: Model) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_rows,
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        max_grad_norm=settings.clip_norm,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=max(1, settings.steps // 20),
        logging_strategy="no",
        save_steps=settings.save_steps,
        save_total_limit=1,
        **quiet(model, settings.seed),
    )


def settings_card(settings: AdapterSettings, progress: AdapterProgress) -> dict[str, Any]:
    """What must be known to repeat a training."""
    last = progress.measured[-1]._asdict() if progress.measured else {}
    return {"settings": asdict(settings), "steps": progress.step, **last, "note": progress.note}
