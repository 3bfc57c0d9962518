"""The adapter lab without its looks: adapters on a shelf, and what the settings put on the model.

No UI library is imported here. Every verb may be called from any thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from widgets.labs.adapters import form, pictures
from widgets.labs.adapters.recorded import recording
from widgets.labs.adapters.shelf import free_name, put_on
from widgets.labs.adapters.stand import LAYERS_UNKNOWN, WORKING, Stand
from widgets.labs.bench import DIALS, Bench
from widgets.labs.board import Cell
from widgets.labs.worker import Stopped, Task
from workbench.core.errors import BadInput
from workbench.engine.dials import held_out
from workbench.models.adapter_checks import kind_of
from workbench.training.adapter import AdapterProgress, AdapterSettings, train_adapter
from workbench.training.realign import Realigned, RealignSettings, realign

SWEEP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
MEASURE_ROWS = 8


class AdapterLab(Stand):
    """State of one adapter lab.

    Args:
        model: to adapt: name, folder, or loaded.
        draft: model whose acceptance is watched; empty = none.
        measure_steps: steps of a training between two measurements.
    """

    title = "Adapters"
    buttons: Mapping[str, str] = MappingProxyType(
        {"train": "▶ Train", "realign": "Re-align draft", **Bench.buttons}
    )
    knobs: Mapping[str, str] = MappingProxyType(
        {
            **Bench.knobs,
            "sweep": "Sweep strength",
            "combine": "Combine",
            "open_folder": "Open folder",
            "save": "Save",
        }
    )
    bands: tuple[tuple[Cell, ...], ...] = (
        (Cell("loss", "plot", 240, 1.0), Cell("upper", "plot", 240, 1.0)),
        (Cell("norms", "plot", 240, 1.0), Cell("lower", "plot", 240, 1.0)),
        (Cell("facts", "html", 190, 1.0), DIALS._replace(share=1.5)),
    )

    # ---- training --------------------------------------------------------------------------------

    def train(self) -> None:
        """Train what the form describes, or go on where the same training was stopped."""
        if self.status.state == "paused":
            self.worker.resume()
        else:
            self.worker.ask("train", self._train)

    def _method(self) -> Any:
        now = self.settings
        if now["method"] == form.PEFT:
            return form.AnyTuner(now)
        return form.made("adapter", now["method"], now)

    def _train(self, task: Task) -> None:
        self._error = ""
        self.prepare(task)
        assert self.adapters is not None and self.model is not None  # prepared
        task.tell("Reading the text")
        now, method, texts = self.settings, self._method(), self.texts_now()
        key = self._form_of(now)
        folder = self._folders.setdefault(key, tempfile.TemporaryDirectory(prefix="adapter-"))
        plan = AdapterSettings(
            steps=now["steps"],
            batch_rows=now["rows"],
            learning_rate=now["rate"],
            measure_steps=self._measure_steps,
            measure_rows=MEASURE_ROWS,
        )
        self.put("show", "training")
        with self.model.lock:
            self.adapters.detach()
            self.adapters.attach(method.config(self.adapters.shapes), WORKING)
            progress = train_adapter(
                self.adapters,
                WORKING,
                method,
                texts,
                plan,
                Path(folder.name),
                self._plain,
                self._listener(task, f"Training {method.name}"),
                lambda: task.stopping,
            )
            name = free_name(method.name, self.shelf)
            self._shelve(name, method.name, texts, progress=progress)
        if progress.step >= plan.steps:
            self._folders.pop(key).cleanup()
        self._choose(progress.note or self._stopped_note(progress, plan), first=name, on=True)

    @staticmethod
    def _form_of(now: Mapping[str, Any]) -> str:
        """What makes a training the same one: the form below New adapter and Training."""
        parts = ("method", "data", "folder", "steps", "rows", "rate", "adapter.", "peft")
        return repr([(key, value) for key, value in sorted(now.items()) if key.startswith(parts)])

    def _listener(self, task: Task, line: str) -> Callable[[AdapterProgress], None]:
        def listen(progress: AdapterProgress) -> None:
            self.progress = progress
            said = (
                f"{line} · step {progress.step} of {progress.steps} · {progress.eta_s:.0f} s left"
            )
            with suppress(Stopped):  # the training itself asks whether to stop, and saves
                task.tell(said, progress.step / progress.steps)

        return listen

    @staticmethod
    def _stopped_note(progress: AdapterProgress, plan: AdapterSettings) -> str:
        if progress.step >= plan.steps:
            return ""
        return f"Stopped after step {progress.step} of {plan.steps}; Train goes on from there."

    # ---- the draft -------------------------------------------------------------------------------

    def realign(self) -> None:
        """Teach a copy of the draft what the adapted target would write."""
        self.worker.ask("realign", self._realign)

    def _realign(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None  # prepared
        if self._plain is None:
            raise BadInput("draft='': there is no draft model to re-align; open the lab with one")
        with self.model.lock:
            self.apply(task)

            def listen(done: Realigned) -> None:
                self.realigned = done
                with suppress(Stopped):
                    said = f"Re-aligning the draft · step {done.step} of {plan.steps}"
                    task.tell(said, done.step / plan.steps)

            plan = RealignSettings(
                steps=max(10, self.settings["steps"] // 2), batch_rows=4, measure_steps=10
            )
            texts = self.texts_now()
            self.realigned = realign(
                self.model, self._plain, texts, plan, listen, lambda: task.stopping
            )
        note = (
            f"On {texts.said.split(':')[0]} the re-aligned draft is accepted"
            f" {self.realigned.after:.3f} of the time, the plain one {self.realigned.before:.3f}."
        )
        self._choose(note, draft=form.REALIGNED)

    def sweep(self) -> None:
        """Acceptance against strength for the three pairings."""
        self.worker.ask("sweep", self._sweep)

    def _sweep(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None and self.adapters is not None  # prepared
        first = self.entry("first")
        if first is None or self._plain is None:
            raise BadInput("sweep: needs an adapter as first, and a draft model; train one")
        rows = self.texts_now().held_out[:MEASURE_ROWS]
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in pictures.PAIRS}
        plain, tuned, neither = pictures.PAIRS
        with self.model.lock:
            self.adapters.detach()
            base = held_out(self.model, rows, self._plain, 0.8)[2] or 0.0
            put_on(self.adapters, first)
            for at, s in enumerate(SWEEP):
                task.tell("Sweeping the strength", at / len(SWEEP))
                self.adapters.set_strength(first.name, s, self.factors)
                found[neither].append((s, base))
                found[plain].append((s, held_out(self.model, rows, self._plain, 0.8)[2] or 0.0))
                if self.realigned is not None:
                    draft = self.realigned.draft
                    found[tuned].append((s, held_out(self.model, rows, draft, 0.8)[2] or 0.0))
                self.sweeps = {name: list(points) for name, points in found.items() if points}
            self.apply(task)
        self.put("show", "strength")
        self._mark()

    # ---- more adapters ---------------------------------------------------------------------------

    def combine(self) -> None:
        """Make a new adapter of the first (and the second)."""
        self.worker.ask("combine", self._combine)

    def _combine(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None and self.adapters is not None  # prepared
        now = self.settings
        method = form.made("operation", now["operation"], now)
        chosen = [e for e in (self.entry("first"), self.entry("second")) if e is not None]
        if not chosen or (method.many and len({e.name for e in chosen}) < 2):
            wants = "two adapters, first and second" if method.many else "an adapter as first"
            raise BadInput(f"operation={method.name!r}: choose {wants}; train or open them")
        task.tell(f"{method.card.title}")
        with self.model.lock:
            self.apply(task)
            names = [entry.name for entry in chosen]
            facts = method.combine(self.adapters, names, WORKING)
            name = free_name(method.name, self.shelf)
            self._shelve(
                name, f"{method.name} of {' and '.join(names)}", self.texts_now(), facts=facts
            )
        self._choose(first=name, on=True)

    def open_folder(self) -> None:
        """Put the adapter of the folder under File on the shelf and on the model."""
        self.worker.ask("open", self._open)

    def _open(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None and self.adapters is not None  # prepared
        path = self.settings["path"].strip()
        if not path:
            raise BadInput("path='': write the folder of a peft adapter under File")
        with self.model.lock:
            self.adapters.detach()
            self.adapters.load(path, WORKING)
            kind = kind_of(self.adapters.config(WORKING))
            name = free_name(Path(path).name or kind, self.shelf)
            self._shelve(name, kind, self.texts_now())
        self._choose(first=name, on=True)

    def save(self) -> None:
        """Write the first adapter to the folder under File."""
        self.worker.ask("save", self._save)

    def _save(self, task: Task) -> None:
        first, path = self.entry("first"), self.settings["path"].strip()
        if first is None or not path:
            raise BadInput("save: choose an adapter as first, and write a folder under File")
        assert self.model is not None and self.adapters is not None  # an entry was made
        with self.model.lock:
            self.adapters.detach()
            put_on(self.adapters, first)
            where = self.adapters.save(first.name, path)
            self.apply(task)
        self.say(f"{first.name} is saved in {where}; peft loads it.")

    # ---- what is shown ---------------------------------------------------------------------------

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """A click on a bar selects its layer; the recorded example may have more of them."""
        data = event.get("customdata")
        layers = self.model.layer_count if self.model else LAYERS_UNKNOWN
        if cell == "norms" and isinstance(data, (int, float)) and 0 <= data < layers:
            self.change("layer", int(data))

    def cells(self) -> dict[str, Any]:
        """The lab's own cells."""
        now, first = self.settings, self.entry("first")
        layers = self.model.layer_count if self.model else 0
        example = None if self.shelf or self.progress else recording()
        if example is not None:
            return pictures.opening(example, now, self._notes)
        curve = self.realigned.curve if self.realigned else ()
        shown = first.progress if first and self.status.state == "idle" else self.progress
        upper = (
            pictures.acceptance(shown, curve)
            if now["show"] == "training"
            else pictures.strength(self.sweeps, now["strength"])
        )
        report = (shown.report if shown else None) or {}
        lower = {
            "spectrum": lambda: pictures.singular(first, now["layer"]),
            "routers": lambda: pictures.routers(first),
            "ranks": lambda: pictures.ranks(report),
        }[now["below"]]()
        factors = {n: now["strength"] * self.factors.get(n, 1.0) * now["on"] for n in range(layers)}
        second = self.entry("second")
        return {
            "loss": pictures.loss(shown),
            "upper": upper,
            "norms": pictures.norms(first, factors, now["layer"], layers),
            "lower": lower,
            "facts": pictures.facts(first, None if second is first else second, self._notes),
        }

    def verbs(self) -> frozenset[str]:
        """What can be pressed now."""
        found = {"train", "open_folder"}
        if self.shelf:
            found |= {"realign", "sweep", "combine", "save"}
        return super().verbs() | found
