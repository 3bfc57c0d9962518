"""What a view of the decode lab draws: one frozen picture of the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from widgets.labs.decode.job import LIVE
from widgets.labs.decode.selection import Selection
from workbench.core.trace import Trace


class LabView(NamedTuple):
    """Everything a view draws, taken at one moment."""

    state: str
    line: str  # what is being waited for, or how the run ended
    fraction: float | None  # of the progress bar; None = no end known
    model_line: str
    trace: Trace | None
    selection: Selection
    settings: Mapping[str, Any]
    form_version: int  # grows when settings changed by other means than the form itself
    errors: Mapping[str, str]  # block -> what went wrong and the fix
    notice: str
    verbs: frozenset[str]  # the buttons that do something now
    following: bool  # the selection moves with the run; nothing was clicked yet
    pictured: bool = True  # the lower left chart is the method's own picture, where it has one

    @property
    def live(self) -> bool:
        """Whether rounds are still being added."""
        return self.state in LIVE


def model_line(model: Any, name: str, trace: Trace | None) -> str:
    """Name, size, dtype and device, as far as they are known: from the model, else from a trace."""
    if model is not None:
        size = f"{model.parameters / 1e6:.1f} M"
        dtype = short_dtype(model.dtype) + (" (widened)" if model.precision else "")
        return f"{model.name} · {size} · {dtype} · {model.device}"
    if trace is not None and trace.model == name:
        return f"{trace.model} · {short_dtype(trace.dtype)} · {trace.device}"
    return name


def short_dtype(name: str) -> str:
    """``float32`` -> ``fp32``, ``bfloat16`` -> ``bf16``."""
    return name.replace("bfloat", "bf").replace("float", "fp")
