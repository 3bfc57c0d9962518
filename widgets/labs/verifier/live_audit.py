"""An audit of a run in a thread of its own, with progress and Stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from widgets.labs import frame
from widgets.labs.decode.engine import held_out_prompts, shared_model
from workbench.bench.audit import Audit
from workbench.core.decoding import Need
from workbench.core.errors import WorkbenchError
from workbench.core.method import make_method
from workbench.core.sampling import Sampling

PROMPT = "def read_config(path):\n    "


class LiveAudit:
    """The newest audit of a run, or what became of it."""

    def __init__(self, changed: Callable[[], None]):
        self._changed = changed
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None
        self._fraction, self._done = 0.0, True
        self.found: Audit | None = None
        self.error = ""

    @property
    def busy(self) -> bool:
        return not self._done

    def start(self, verifier: Any, settings: Mapping[str, Any]) -> None:
        """Audit a run; while one is going nothing happens."""
        if self.busy:
            return
        self._cancel = threading.Event()
        self.found, self.error, self._fraction, self._done = None, "", 0.0, False
        self._thread = threading.Thread(
            target=self._work, args=(verifier, dict(settings)), daemon=True, name="live-audit"
        )
        self._thread.start()
        self._changed()

    def stop(self) -> None:
        self._cancel.set()

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Until it has ended; False if that took too long."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.busy

    def progress_html(self) -> str:
        if not self.busy:
            return frame.progress_html("", 0.0)
        return frame.progress_html("auditing a run", self._fraction or None)

    def _work(self, verifier: Any, settings: dict[str, Any]) -> None:
        try:
            found = self._audited(verifier, settings)
            if self._cancel.is_set():
                self.error = "The audit was stopped before it had seen enough."
            else:
                self.found = found
        except WorkbenchError as error:
            self.error = str(error)
        except Exception as error:  # a bug or the machine's limits: the lab itself stays usable
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._done = True
            self._changed()

    def _audited(self, verifier: Any, settings: dict[str, Any]) -> Audit:
        from workbench.bench.lossless import audit_run
        from workbench.engine.run import RunSettings

        drafter = make_method("drafter", settings["drafter"])
        needs_draft = Need.DRAFT in drafter.needs
        run = RunSettings(
            shared_model("zoo:target"),
            next(iter(held_out_prompts().values()), PROMPT),
            drafter,
            verifier,
            sampling=Sampling(settings["temperature"]),
            draft_model=shared_model("zoo:draft") if needs_draft else None,
            record_top=0,
        )
        return audit_run(
            run, draws=settings["draws"], tell=self._tell, cancelled=self._cancel.is_set
        )

    def _tell(self, fraction: float) -> None:
        self._fraction = fraction
        self._changed()
