"""One start of the decode lab, in a thread of its own: load, run, measure plain decoding."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from widgets.labs.decode import settings as lab
from widgets.labs.decode.engine import Engine
from workbench.core.errors import BadInput, Mismatch, ModelError, NotFinite, WorkbenchError
from workbench.core.trace import Trace

LIVE = frozenset({"running", "paused"})
BUSY = LIVE | {"loading", "measuring"}
BASELINE_TOKENS, BASELINE_REPEATS = 32, 3
MEASURING = "Measuring plain decoding to compare with"


class Status(NamedTuple):
    """What a job is doing; ``fraction`` None = under way, no end known."""

    state: str
    line: str
    fraction: float | None


class Stopped(Exception):
    """Stop was pressed before the run existed."""


class Blocked(WorkbenchError):
    """An error that is known to belong to one block of the lab."""

    def __init__(self, block: str, error: Exception):
        super().__init__(str(error))
        self.block = block


class Models:
    """The models of one lab: those handed in, and those loaded by name."""

    def __init__(self, tools: Callable[[], Engine], given: Mapping[str, Any]):
        self._tools, self._given = tools, dict(given)
        self._found: dict[tuple[str, str | None], Any] = {}

    def known(self, name: str) -> Any:
        """The model if it is there already, else None."""
        return self._given.get(name) or self._found.get((name, None))

    def device_of(self, name: str) -> str | None:
        """Where a model that was handed in stands; None where models stand anyway."""
        return getattr(self._given.get(name), "device", None)

    def load(self, name: str, block: str, device: str | None = None) -> Any:
        """The model, loaded if need be; what goes wrong belongs to ``block``."""
        if name in self._given and device in (None, self.device_of(name)):
            return self._given[name]
        if (name, device) not in self._found:
            try:
                self._found[name, device] = (
                    self._tools().load(name, device) if device else self._tools().load(name)
                )
            except WorkbenchError as error:
                raise Blocked(block, error) from error
        return self._found[name, device]


class Job:
    """Load the models, run once, measure plain decoding once per prompt and sampling.

    Args:
        tools: the engine.
        models: where models come from.
        settings: of this start; later changes of the form do not reach it.
        baselines: measured plain decoding by key, shared by the starts of one lab.
        changed: called from the job's thread whenever something changed.
    """

    def __init__(
        self,
        tools: Callable[[], Engine],
        models: Models,
        settings: Mapping[str, Any],
        baselines: dict[tuple, Any],
        changed: Callable[[], None],
    ):
        self._tools, self._models, self._name = tools, models, settings["model"]
        self.settings, self._baselines, self._changed = settings, baselines, changed
        self._status = Status("loading", f"Loading {self._name}", None)
        self._cancel = threading.Event()
        self._run: Any = None
        self._final: Trace | None = None
        self.errors: dict[str, str] = {}
        self.warming = False  # only loads a model; a start need not wait for it
        self._thread: threading.Thread | None = None

    # ---- verbs, from any thread ----------------------------------------------------------------

    def begin(self, verb: str | None) -> None:
        """Start the thread. ``verb``: ``start``, ``step`` (stay paused), None (only load)."""
        self.warming = verb is None
        self._thread = threading.Thread(
            target=self._guard, args=(verb,), daemon=True, name="lab-job"
        )
        self._thread.start()

    def tell(self, verb: str) -> None:
        """``start``, ``pause`` or ``step`` the run, if there is one by now."""
        if self._run is not None and self._final is None:
            getattr(self._run, verb)()

    def stop(self) -> None:
        """End as soon as possible, keeping what was generated."""
        self._cancel.set()
        if self._run is not None:
            self._run.stop()

    def wait(self, timeout_s: float) -> bool:
        """Until the job's thread has ended; False if that took too long."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ---- reading -------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        run = self._run
        if self._status.state != "running" or run is None or run.state not in LIVE:
            return self._status
        done, total, eta_s = run.progress.done, run.progress.total, run.progress.eta_s
        left = "" if eta_s is None else f" · {eta_s:.0f} s left"
        tail = " · paused" if run.state == "paused" else left
        return Status(run.state, f"{done} of {total} tokens{tail}", done / total if total else 0.0)

    @property
    def trace(self) -> Trace | None:
        """The run so far; None before there is one."""
        if self._final is not None or self._run is None:
            return self._final
        return self._run.trace

    # ---- the thread ----------------------------------------------------------------------------

    def _guard(self, verb: str | None) -> None:
        """Whatever goes wrong ends in a block of the lab, never in silence."""
        try:
            self._work(verb)
        except Stopped:
            self._set("stopped", "stopped before the first token", 0.0)
        except WorkbenchError as error:
            self._fail(block_of(error), str(error))
        except Exception as error:  # a bug or the machine's limits: the lab itself stays usable
            self._fail("run", f"{type(error).__name__}: {error}")

    def _work(self, verb: str | None) -> None:
        if verb is None:
            self._models.load(self._name, "model")
            self._set("idle", "", 0.0)
            return
        made, sampling = self._checked()
        model = self._models.load(self._name, "model")
        settings = self._run_settings(model, made, sampling)
        run = self._tools().run(settings, listener=self._changed)
        if self._cancel.is_set():
            raise Stopped
        self._run = run
        self._set("running", "", 0.0)
        getattr(run, verb)()
        if self._cancel.is_set():
            run.stop()
        while not run.wait(0.5):
            self._changed()
        self._finish(model, run, sampling)

    def _checked(self) -> tuple[dict[str, Any], Any]:
        """The methods and the sampling; what is wrong with the form shows before any loading."""
        prompt = self.settings["prompt"]
        if not prompt.strip():
            raise BadInput(f"prompt={prompt!r}: is empty; type some text or pick a held-out prompt")
        return lab.make_methods(self.settings), lab.make_sampling(self.settings)

    def _run_settings(self, model: Any, made: dict[str, Any], sampling: Any) -> Any:
        settings, draft = self.settings, None
        if lab.needs_draft(settings):
            self._set("loading", f"Loading {settings['draft']}", None)
            place = settings["draft_device"]
            if place == lab.SAME:
                place = self._models.device_of(self._name)
            draft = self._models.load(settings["draft"], "drafter", place)
        return self._tools().settings(
            model=model,
            prompt=settings["prompt"],
            sampling=sampling,
            max_new_tokens=settings["max_new_tokens"],
            draft_model=draft,
            **made,
        )

    def _finish(self, model: Any, run: Any, sampling: Any) -> None:
        self._final = trace = run.trace
        if run.state == "failed":
            error = run.error or "the run failed without a message"
            self._fail(block_named(error, "run"), error)
            return
        if trace.new_tokens and not self._cancel.is_set():
            self._set("measuring", MEASURING, 0.0)
            try:
                self._final = trace.with_(baseline=self._baseline(model, trace, sampling))
            except Stopped:
                self.errors["speed"] = "Not compared: Stop was pressed while plain decoding ran."
            except Exception as error:  # the run itself is fine and stays on the screen
                self.errors["speed"] = f"Plain decoding could not be measured: {error}"
        asked = trace.max_new_tokens or len(trace.new_tokens)
        state = "stopped" if run.state == "stopped" else "finished"
        fraction = 1.0 if state == "finished" else min(1.0, len(trace.new_tokens) / max(1, asked))
        self._set(state, end_line(trace, state), fraction)

    def _baseline(self, model: Any, trace: Trace, sampling: Any) -> Any:
        key = (self._name, tuple(trace.prompt_tokens), sampling)
        if key not in self._baselines:
            tokens = max(1, min(BASELINE_TOKENS, len(trace.new_tokens)))
            self._baselines[key] = self._tools().baseline(
                model,
                trace.prompt,
                sampling,
                tokens=tokens,
                repeats=BASELINE_REPEATS,
                progress=self._measured,
            )
        return self._baselines[key]

    def _measured(self, fraction: float) -> None:
        if self._cancel.is_set():
            raise Stopped
        self._set("measuring", MEASURING, fraction)

    def _fail(self, block: str, text: str) -> None:
        self.errors[block] = text
        self._set("failed", "the run did not finish", 0.0)

    def _set(self, state: str, line: str, fraction: float | None) -> None:
        self._status = Status(state, line, fraction)
        self._changed()


def block_of(error: WorkbenchError) -> str:
    """The block of the lab where an error is shown: by what it names first, else by its kind."""
    if isinstance(error, Blocked):
        return error.block
    kinds = {ModelError: "model", Mismatch: "drafter", NotFinite: "run"}
    return block_named(str(error), kinds.get(type(error), "prompt"))


def block_named(text: str, default: str) -> str:
    """The block whose setting a message begins with, e.g. ``temperature=-1: ...``."""
    word = re.split(r"[^a-z_]", text, maxsplit=1)[0]
    named = [key for key in lab.all_fields() if key.rpartition(".")[2] == word]
    blocks = {lab.section_of(key) for key in named}
    if len(blocks) == 1:
        return blocks.pop()
    return {"target": "drafter", "model": "model"}.get(word, default)


def end_line(trace: Trace, state: str) -> str:
    """How a run ended, in a few words."""
    count = len(trace.new_tokens)
    tokens = f"{count} token{'s' * (count != 1)}"
    if state == "stopped":
        return f"stopped after {tokens}"
    reason = {"eos": " · end of text", "context": " · context is full"}.get(trace.finish, "")
    return f"{tokens}{reason}"
