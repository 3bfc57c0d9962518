"""Teach a copy of the draft model what an adapter has made of the target.

*Idea*: an adapter moves the target away from the draft that was made for the base, and acceptance
falls. The target itself can say what it would have written, at every place of the text that it was
adapted to: soft targets bring the draft back.

*Paper*: DistillSpec, 2023, arXiv 2310.08461: forward KL to the target's law.

*Deviations*: the text is the adapter's own training text, not samples of the draft (on-policy data
helps at length, not in the minute that this takes). Whole rows; a step that does harm is taken
back, as in online learning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from workbench.core.inference import inference_mode
from workbench.engine.dials import held_out
from workbench.models.learner import Learner, Lesson
from workbench.models.model import Model
from workbench.training.texts import Texts


@dataclass(frozen=True)
class RealignSettings:
    """How long and how fast.

    Args:
        steps: of the optimiser; each reads ``batch_rows`` rows.
        learning_rate: of AdamW; falls linearly to a tenth.
        measure_steps: steps between two measurements.
        temperature: of the acceptance.
    """

    steps: int = 60
    batch_rows: int = 8
    learning_rate: float = 1e-3
    measure_steps: int = 15
    measure_rows: int = 16
    temperature: float = 0.8
    seed: int = 7


@dataclass
class Realigned:
    """The draft's copy, and (step, acceptance on held-out rows) while it was taught."""

    draft: Model
    curve: list[tuple[int, float]] = field(default_factory=list)
    step: int = 0
    refused: int = 0  # steps that were taken back

    @property
    def before(self) -> float:
        return self.curve[0][1]

    @property
    def after(self) -> float:
        return self.curve[-1][1]


def realign(
    target: Model,
    draft: Model,
    texts: Texts,
    settings: RealignSettings,
    listener: Callable[[Realigned], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Realigned:
    """Distil the target, as it is now, into a copy of the draft; the draft itself is untouched.

    Args:
        listener: called after every step; may wait, for a pause.
        stopped: asked after every step; true keeps what was learnt so far.
    """
    learner, rows = Learner(draft), texts.held_out[: settings.measure_rows]
    done = Realigned(learner.model)
    generator = torch.Generator().manual_seed(settings.seed)

    def measure() -> None:
        found = held_out(target, rows, done.draft, settings.temperature)[2]
        assert found is not None  # there is a draft
        done.curve.append((done.step, found))

    measure()
    for step in range(1, settings.steps + 1):
        chosen = torch.randint(len(texts.train), (settings.batch_rows,), generator=generator)
        rate = settings.learning_rate * (1 - 0.9 * (step - 1) / settings.steps)
        study = learner.study(_lessons(target, texts.train[chosen]), rate)
        done.step, done.refused = step, done.refused + (not study.kept)
        if step % settings.measure_steps == 0 or step == settings.steps:
            measure()
        listener(done)
        if stopped():
            break
    if done.curve[-1][0] != done.step:
        measure()
    done.draft.network.requires_grad_(False)
    return done


@inference_mode()
def _lessons(target: Model, rows: torch.Tensor) -> list[Lesson]:
    """Every place of every row, with the target's logits there."""
    logits = target.network(input_ids=rows.to(target.torch_device), use_cache=False).logits
    places = list(range(rows.shape[1]))
    return [
        Lesson(row.tolist(), places, law.float()) for row, law in zip(rows, logits, strict=True)
    ]
