"""A copy of a model that is trained between rounds, and falls back where a step does harm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from workbench.core.inference import inference_mode
from workbench.core.losses import soft_cross_entropy
from workbench.models.model import Model

HARM = 1.25  # a step that raises the loss on its own lessons by this factor is taken back


@dataclass(frozen=True, eq=False)
class Lesson:
    """A text and the teacher's logits after some of its tokens.

    Shapes: places ``[m]`` (indices into ``tokens``), logits ``[m v]`` on the learner's device.
    """

    tokens: list[int]
    places: list[int]
    logits: torch.Tensor


class Study(NamedTuple):
    """One step: the loss in nats before and after it, and whether the step was kept."""

    before: float
    after: float
    kept: bool


class Learner:
    """Owns the copy, its optimiser and the way back.

    Args:
        source: the model to copy; it is never changed, and copied only when first needed.
    """

    def __init__(self, source: Model):
        self.source = source
        self.updates = 0
        self.caution = 1.0  # factor on the rate, halved by every step taken back

    def __deepcopy__(self, memo: dict) -> Learner:
        """Itself, as with models: only :meth:`study` changes it."""
        return self

    @cached_property
    def model(self) -> Model:
        return self.source.clone()

    @cached_property
    def _weights(self) -> list[torch.nn.Parameter]:
        weights = list(self.model.network.parameters())
        for weight in weights:
            weight.requires_grad_(True)
        return weights

    @cached_property
    def _optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._weights, weight_decay=0.0)

    def study(self, lessons: list[Lesson], rate: float) -> Study:
        """One AdamW step (gradient norm clipped to 1) on the mean soft cross-entropy.

        A step after which the loss is not finite, or larger by a quarter, is taken back: the
        weights are those of before, the moments start anew, and later steps are half as long.
        """
        with inference_mode(False), torch.enable_grad():
            lessons = [Lesson(one.tokens, one.places, one.logits.clone()) for one in lessons]
            before = [weight.detach().clone() for weight in self._weights]
            loss = self._loss(lessons)
            self._optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
            for group in self._optimiser.param_groups:
                group["lr"] = rate * self.caution
            if math.isfinite(float(norm)):
                self._optimiser.step()
            with torch.no_grad():
                after = float(self._loss(lessons))
        first = float(loss.detach())
        study = Study(first, after, after <= HARM * first and math.isfinite(float(norm)))
        if study.kept:
            self.updates += 1
        else:
            self._take_back(before)
        self._optimiser.zero_grad()
        return study

    def _take_back(self, before: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for weight, old in zip(self._weights, before, strict=True):
                weight.copy_(old)
        del self._optimiser  # its moments led here; the next use makes a new one
        self.caution /= 2

    def _loss(self, lessons: list[Lesson]) -> torch.Tensor:
        """Mean over all places; each text is read once, whole."""
        student, teacher = [], []
        for lesson in lessons:
            ids = torch.tensor([lesson.tokens], device=self.model.torch_device)
            seen = self.model.network(input_ids=ids, use_cache=False).logits[0, lesson.places]
            known = min(seen.shape[-1], lesson.logits.shape[-1])
            student.append(seen[:, :known])
            teacher.append(lesson.logits[:, :known])
        return soft_cross_entropy(torch.cat(student), torch.cat(teacher))
