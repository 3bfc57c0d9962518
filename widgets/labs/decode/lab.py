"""``DecodeLab`` and ``show``: what a notebook calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.recorded import recorded_trace
from widgets.labs.decode.twin import twin_html
from workbench.core.trace import Trace


class DecodeLab:
    """Watch one speculative run live: settings left, the run in the middle, why on the right.

    Args:
        model: the target: a name (``zoo:target``, a folder, a hub id) or a loaded model.
        draft: the draft model, likewise; used by drafters that need one.
        prompt: text to continue; without one the lab opens on a recorded run.
        trace: a run to show at once.
        settings: any setting by name, e.g. ``drafter="token_recycling"``, ``temperature=0.8``.

    Raises:
        UnknownMethod, BadKnob, BadInput: with the parameter, the value and the fix.

    Example:
        >>> DecodeLab("zoo:target", prompt="def add(a, b):")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any = None,
        draft: Any = None,
        prompt: str | None = None,
        *,
        trace: Trace | None = None,
        **settings: Any,
    ):
        given = trace is not None
        if trace is None and prompt is None:
            trace = recorded_trace()
        self.controller = DecodeController(model, draft, prompt, trace=trace, **settings)
        self._controls, self._warm = True, not given
        self._view: Any = None

    @classmethod
    def open(cls, source: Trace | str | Path) -> DecodeLab:
        """A lab on a saved trace; no model is loaded before Start is pressed.

        Raises:
            TraceError: a file that is no trace.
        """
        trace = source if isinstance(source, Trace) else Trace.load(source)
        return cls(trace=trace)

    @property
    def trace(self) -> Trace | None:
        """The run that is shown."""
        return self.controller.trace

    @property
    def view(self) -> Any:
        """The ipywidgets view; built when it is first shown."""
        if self._view is None:
            from widgets.labs.decode.jupyter import JupyterView

            self._view = JupyterView(self.controller, controls=self._controls)
            if self._warm:
                self.controller.warm()
        return self._view

    def set(self, key: str, value: Any) -> bool:
        """Change a setting as the form would; False (and a message in the lab) if it is refused."""
        return self.controller.change(key, value)

    def start(self) -> DecodeLab:
        """Press Start; returns at once."""
        self.controller.start()
        return self

    def stop(self) -> DecodeLab:
        """Press Stop; what was generated stays."""
        self.controller.stop()
        return self

    def wait(self, timeout_s: float = 120.0) -> DecodeLab:
        """Until the run and the plain baseline are done.

        Raises:
            TimeoutError: after ``timeout_s`` seconds.
        """
        if not self.controller.wait(timeout_s):
            raise TimeoutError(
                f"timeout_s={timeout_s}: the run is still going; wait longer or stop"
            )
        return self

    def close(self) -> None:
        """Stop what runs and take the lab off the page."""
        self.controller.close()
        if self._view is not None:
            self._view.close()

    def __repr__(self) -> str:
        kind = "DecodeLab" if self._controls else "Trace viewer"
        return f"<{kind} of {self.controller.model_name}>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        live = self.view.widget._repr_mimebundle_(**options)
        bundle, metadata = live if isinstance(live, tuple) else (live, {})
        twin = {"text/plain": repr(self), "text/html": twin_html(self.controller.view())}
        return {**(bundle or {}), **twin}, metadata


def show(trace: Trace | str | Path) -> DecodeLab:
    """A saved trace to look at, without controls and without any model.

    Raises:
        TraceError: a file that is no trace.

    Example:
        >>> show("run.json")  # doctest: +SKIP
    """
    given = trace if isinstance(trace, Trace) else Trace.load(trace)
    lab = DecodeLab.open(given)
    lab.controller.show(given)  # a line that does not name the Start button, which is not there
    lab._controls = False
    return lab
