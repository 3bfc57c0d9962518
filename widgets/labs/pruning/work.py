"""What the pruning lab does on its worker: prune, apply, sweep, retrain, cut out.

*Idea*: every piece of work starts from the untouched weights and leaves the model as the settings
say, also when it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from widgets.figures import mask_image
from widgets.labs.bench import Bench
from widgets.labs.pruning import form
from widgets.labs.pruning.state import (
    Retrained,
    Stroke,
    Sweeps,
    across_of,
    roles_of,
    with_strokes,
)
from widgets.labs.worker import Task
from workbench.bench.sparsity import Point, curve, layer_harm, pass_ratio, point
from workbench.bench.sparsity import semi_structured_ratio as sparse_ratio
from workbench.core.errors import WorkbenchError
from workbench.core.masks import MaskSet, Pattern
from workbench.core.method import find_method, methods
from workbench.core.pruning import Plan, Stats
from workbench.engine.dials import held_out
from workbench.models.calibrate import (
    calibration_rows,
    hear,
    spread_rows,
    standard_texts,
    texts_from,
)
from workbench.models.masking import Edit
from workbench.models.model import Model
from workbench.models.prune import Pruned, prune
from workbench.models.slicing import cut_of, save_sliced, sliced
from workbench.models.units import expanded, layers_of, matrices
from workbench.training.adapter import AdapterSettings
from workbench.training.importance_lora import RATE, importance_of, recipe_for, recover
from workbench.training.perp import PerpSettings, Recovery, perp
from workbench.training.reconstruction import reconstruct
from workbench.training.texts import Texts

SWEEP_ROWS = 8  # held-out rows of each point of a curve
TRAINING_LETTERS = 3_000_000
BLOCK_ROWS = 32  # of a reconstruction
NOTHING = Pruned(MaskSet())


class PruningWork(Bench):
    """The state that the work needs, and the work; see :class:`PruningLab` for the rest."""

    def __init__(
        self,
        model: str | Model = "zoo:target",
        draft: str | Model = "zoo:draft",
        mask: MaskSet | None = None,
    ):
        super().__init__(model, draft)
        self.dense: Model | None = None
        self.masks, self.full = MaskSet(), MaskSet()
        self.changed: Mapping[str, torch.Tensor] = {}  # where weights stay, but not as they were
        self.sweeps = Sweeps()
        self._edit = Edit()
        self._made: dict[Any, Pruned] = {}
        self._rows: dict[str, torch.Tensor] = {}
        self._stats: dict[str, Stats] = {}
        self._first: dict[str, torch.Tensor] = {}
        self._shown: tuple[Any, Any, mask_image.MaskImage] | None = None
        self._drawn: tuple[mask_image.MaskImage, dict[str, Any]] | None = None
        self._kept: list[float] = []
        # The recorded example's, and most families': the form need not choose anew under the hand.
        self._roles: tuple[str, ...] = ("q_proj",)
        self._across: tuple[str, ...] = tuple(form.ACROSS)
        self._cut: int | None = None
        self._sparse = ""
        if mask is not None:
            self.history.replace({"mask": mask})

    # ---- settings --------------------------------------------------------------------------------

    @property
    def strokes(self) -> tuple[Stroke, ...]:
        """What the hand painted, oldest first."""
        return self.value("strokes", ())

    @property
    def _pruner_name(self) -> str:
        return self.value("pruner", form.FIRST)

    def _pattern(self) -> Pattern:
        acts_on = find_method("pruner", self._pruner_name).make().acts_on
        return Pattern.parse(self.settings[f"pattern.{acts_on}"])

    def plan(self) -> Plan:
        """How much goes."""
        pattern = self._pattern()
        if pattern.kind == "n_m":  # says itself how much stays
            return Plan(pattern, 1 - pattern.keep / pattern.of)
        return Plan(pattern, self.value("ratio", 0.0), form.layer_ratios(self.history.now))

    @property
    def untouched(self) -> bool:
        """No mask is on the model, and nothing was retrained."""
        return not (self.masks.weights or self.masks.parts) and self.value("retrained") is None

    # ---- applying --------------------------------------------------------------------------------

    def prepared(self, task: Task) -> None:
        """What every matrix hears, and a copy that stays dense."""
        assert self.model is not None  # loaded
        task.tell("Reading calibration text")
        rows = self._calibration()
        self.dense = self.model.clone()
        self._first = {name: one.weight for name, one in matrices(self.dense).items()}
        self._kept = [1.0] * len(layers_of(self.model))
        self._roles, self._across = roles_of(self.model), across_of(self.model)
        if self._looking.get("matrix") not in (*self._roles, *self._across):
            self._looking.pop("matrix", None)  # chosen before the family was known
        self._stats = hear(self.model, rows, task.timed("Listening to the layers"))

    def _calibration(self) -> torch.Tensor:
        """Rows of the chosen text.

        Raises:
            BadInput: a file that is not there, or text of a line or less.
        """
        assert self.model is not None  # loaded
        chosen = self.settings["text"]
        if chosen not in self._rows:
            texts = texts_from(chosen) if chosen else standard_texts()
            self._rows[chosen] = calibration_rows(self.model, texts)
        return self._rows[chosen]

    def apply(self, task: Task) -> None:
        """From the untouched weights: prune, paint, put back what was retrained."""
        assert self.model is not None and self.dense is not None  # prepared
        self._edit.undo()
        try:
            made = self._pruned(task)
        except WorkbenchError:
            self._bare()
            raise
        self.masks = with_strokes(self.model, made.masks, self.strokes)
        self.full = expanded(self.model, self.masks)
        done = self._retrained()
        self.changed = made.weights if done is None else done.recovery.weights(self.model)
        Pruned(self.masks, self.changed).apply(self.model, self._edit)
        self._kept, self._cut = self._layer_shares(), self._cut_size()
        self._measure_here()

    def _bare(self) -> None:
        """Nothing could be pruned as it was asked: what is shown is the whole model."""
        self.masks, self.full, self.changed = MaskSet(), MaskSet(), {}
        self._kept, self._cut = [1.0] * len(self._kept), None
        self._measure_here()

    def _pruned(self, task: Task) -> Pruned:
        assert self.model is not None  # prepared
        opened = self.value("mask")
        if opened is not None:
            made = opened if isinstance(opened, Pruned) else Pruned(opened)
            return made.check(self.model)
        plan, pruner = self.plan(), form.pruner_of(self.history.now)
        if plan.ratio == 0 and not any(plan.layers.values()):
            return NOTHING
        text = self.settings["text"]
        key = (repr(pruner), repr(plan), text)
        if key not in self._made:
            rows = self._calibration() if pruner.hears else None
            title = find_method("pruner", self._pruner_name).title
            self._made = dict(list(self._made.items())[-7:])
            self._made[key] = prune(self.model, pruner, plan, rows, task.timed(f"{title} prunes"))
        return self._made[key]

    def _layer_shares(self) -> list[float]:
        """Kept share of each layer."""
        assert self.model is not None  # prepared
        kept, total = [0] * len(layers_of(self.model)), [0] * len(layers_of(self.model))
        for name, one in matrices(self.model).items():
            mask = self.full.weights.get(name)
            total[one.layer] += one.weight.numel()
            kept[one.layer] += one.weight.numel() if mask is None else int(mask.sum())
        return [a / b for a, b in zip(kept, total, strict=True)]

    def _cut_size(self) -> int | None:
        """Parameters of the cut-out model; None where nothing can be cut out."""
        assert self.model is not None  # prepared
        try:
            cut_of(self.model, self.masks)
            return sliced(self.model, self.masks).parameters
        except WorkbenchError:
            return None

    def _measure_here(self) -> None:
        """The present setting as a point of the curves."""
        assert self.model is not None and self.dense is not None and self.stick is not None
        rows = self.stick.rows[:SWEEP_ROWS]
        loss, _, accepted = held_out(self.model, rows, self.dense)
        whole = sum(one.weight.numel() for one in matrices(self.model).values())
        gone = sum(int((~mask).sum()) for mask in self.full.weights.values()) / whole
        self.sweeps.here = Point(self.plan().ratio, gone, loss, accepted or 0.0)

    # ---- sweeps, retraining, files ---------------------------------------------------------------

    def _sweep(self, task: Task) -> None:
        self._swept(task, self._all_curves)

    def _swept(self, task: Task, work: Any) -> None:
        """Do ``work`` on the untouched weights, then make the model what the settings say again."""
        self.prepare(task)
        assert self.model is not None  # prepared
        with self.model.lock:
            self._edit.undo()
            try:
                work(task)
            finally:
                self._again()

    def _again(self) -> None:
        """Apply without a word: also after Stop."""
        self.apply(Task("again", lambda line, fraction: None))
        self._mark()

    def _all_curves(self, task: Task) -> None:
        assert self.model is not None and self.dense is not None and self.stick is not None
        rows, text = self.stick.rows[:SWEEP_ROWS], self._calibration()
        cards = sorted(methods("pruner"), key=lambda card: card.make().hears == "gram")
        for card in cards:
            found: list[Point] = []
            pattern = self._pattern()
            progress = task.timed(f"Curve of {card.title}")
            try:
                for one in curve(
                    self.model, self.dense, rows, card.make(), pattern, text, progress=progress
                ):
                    found.append(one)
                    self.sweeps.curves = {**self.sweeps.curves, card.name: list(found)}
                    self._mark()
            except WorkbenchError as error:  # a family without such parts
                self.say(str(error))

    def _all_layers(self, task: Task) -> None:
        assert self.model is not None and self.dense is not None and self.stick is not None
        rows = self.stick.rows[:SWEEP_ROWS]
        self.sweeps.dense = point(self.model, self.dense, rows, NOTHING)
        progress = task.timed("Dropping each layer alone")
        self.sweeps.harm = layer_harm(self.model, self.dense, rows, progress)

    def _retrain(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None and self.stick is not None and self.dense is not None
        model, progress = self.model, task.timed("Retraining")

        def listener(step: int, steps: int, loss: float) -> None:
            self._heard(task, progress, step, steps)

        with model.lock:
            self.apply(task)
            before = held_out(model, self.stick.rows)[0]
            for number in model.network.parameters():
                self._edit.keep(number.detach())
            last = self._retrained()
            done = self._recovered(last.recovery if last else None, listener, lambda: task.stopping)
            if last is not None:  # what this part left alone was learnt before it
                done.tensors = {**last.recovery.tensors, **done.tensors}
            after = held_out(model, self.stick.rows)[0]
        self.sweeps.retrained.append(Retrained(self.masks, done, before, after))
        self.put("retrained", len(self.sweeps.retrained) - 1)
        self.worker.ask("apply", self._apply)

    def _recovered(
        self, last: Recovery | None, listener: Callable, stopped: Callable[[], bool]
    ) -> Recovery:
        """What the chosen recipe makes of the network as it is; text goes on from before."""
        assert self.model is not None and self.stick is not None and self.dense is not None
        now, model = self.settings, self.model
        live: dict[str, Any] = {"listener": listener, "stopped": stopped}
        texts = texts_from(now["text"]) if now["text"] else standard_texts(TRAINING_LETTERS)
        steps, recipe = now["steps"], now["recipe"]
        settings = PerpSettings(now.get("norms", True), now.get("variant", "none"), steps=steps)
        count = BLOCK_ROWS if recipe == form.RECIPES[1] else steps * settings.batch_rows
        take = spread_rows if recipe == form.RECIPES[2] else calibration_rows
        rows = take(model, texts, rows=count)
        if recipe == form.RECIPES[1]:
            return reconstruct(model, self.dense, self.masks, rows, settings, **live)
        if recipe == form.RECIPES[2]:
            importance = importance_of(self._stats, model.layer_count)
            own = recipe_for(model, self.masks, importance)
            few = AdapterSettings(steps, settings.batch_rows, RATE, steps, SWEEP_ROWS)

            def heard(progress: Any) -> None:
                listener(progress.step, progress.steps, progress.curve[-1][1])

            said = Texts(rows, self.stick.rows, "calibration text")
            return recover(model, own, said, few, listener=heard, stopped=stopped)
        if last is not None and not (last.state and last.state.goes_on_with(settings)):
            last = None  # other numbers: on top of what was learnt
        return perp(model, self.masks, rows, settings, going_on=last, **live)

    def _heard(self, task: Task, progress: Any, step: int, steps: int) -> None:
        if not task.stopping:  # a stop keeps what was learnt so far
            progress(step / steps)

    def _retrained(self) -> Retrained | None:
        """What was learnt under exactly these masks, if it is switched on."""
        index = self.value("retrained")
        if index is None:
            return None
        done = self.sweeps.retrained[index]
        return done if done.masks == self.masks else None

    def _cut_out(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None and self.stick is not None and self.dense is not None
        folder = Path(self.settings["folder"]).expanduser() / "checkpoint"
        with self.model.lock:
            task.tell("Cutting out")
            self.apply(task)
            made = save_sliced(self.model, self.masks, folder)
        task.tell("Timing a pass of both")
        ratio = pass_ratio(made, self.dense, self.stick.rows[:4])
        self.say(
            f"{folder}: {made.parameters / 1e6:.2f} of {self.model.parameters / 1e6:.2f} M"
            f" parameters; a pass takes {ratio:.2f} of the whole model's time here (measured)."
        )

    def _speed(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None  # prepared
        ratios = sparse_ratio(self.model, self.full)
        worst, best = min(ratios.values(), default=0.0), max(ratios.values(), default=0.0)
        self._sparse = (
            f"2:4 here: a product takes {worst:.2f} to {best:.2f} of the dense time"
            f" ({len(ratios)} matrices)."
            if ratios
            else "2:4: no matrix of this model fits the tiles of the sparse kernels."
        )
        self._mark()
