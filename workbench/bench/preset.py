"""A preset: the setting that was fastest on one machine, with what is needed to doubt it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.bench.grid import Cell, cell_from_json
from workbench.bench.machine import alike, this_machine, words
from workbench.core.errors import BadInput, WorkbenchError
from workbench.engine.run import RunSettings
from workbench.models.load import Model

SCHEMA = 1


@dataclass(frozen=True)
class Preset:
    """What was tuned, where and on what.

    Args:
        cell: the configuration.
        ratio, ratio_interval: tokens/s over plain decoding's, of fresh measurements.
        machine: see :func:`workbench.bench.machine.this_machine`.
        prompts, setting: what it was tuned on.
        trials: configurations tried.
        command: tunes again.
    """

    cell: Cell
    ratio: float
    ratio_interval: tuple[float, float]
    machine: dict[str, Any]
    prompts: dict[str, Any]
    setting: dict[str, Any]
    trials: int
    command: str

    def to_json(self) -> dict[str, Any]:
        told = {**vars(self), "cell": self.cell.to_json()}
        return {"schema": SCHEMA, **told, "ratio_interval": list(self.ratio_interval)}

    def warning(self, machine: dict[str, Any] | None = None) -> str:
        """Why its speed may not be had here; empty on the machine that it was tuned on."""
        here = machine or this_machine()
        if alike(self.machine, here):
            return ""
        return (
            f"this preset was tuned on {words(self.machine)}; this is {words(here)}, where another"
            f" setting may be faster, and this one slower than plain decoding. Tune anew with:"
            f" {self.command}"
        )

    def settings(self, model: Model, prompt: str, draft: Model | None, **more: Any) -> RunSettings:
        """A run with it; ``model`` and ``draft`` are the checkpoints that it names."""
        made = {family: self.cell.make(family) for family in ("drafter", "verifier", "policy")}
        made |= {"schedule": self.cell.make("schedule"), "sampling": self.cell.sampling}
        return RunSettings(model, prompt, draft_model=draft, **{**made, **more})


def open_preset(path: str | Path) -> Preset:
    """Read a preset; ask its :meth:`Preset.warning` before trusting its speed.

    Raises:
        BadInput: a file that is no preset of this version.
    """
    where = f"preset={str(path)!r}"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{where} cannot be read ({error.strerror})") from None
    return read_preset(data, where)


def read_preset(data: bytes, where: str) -> Preset:
    """The preset in a file's bytes; ``where`` names the file in errors.

    Raises:
        BadInput: they hold no preset of this version.
    """
    try:
        told = json.loads(data)
    except ValueError:
        raise BadInput(f"{where} is not JSON; was it written by `workbench bench tune`?") from None
    try:
        if told.pop("schema") != SCHEMA:
            raise BadInput(f"{where}: not schema {SCHEMA}, the one this version reads; tune anew")
        low, high = map(float, told.pop("ratio_interval"))
        cell = cell_from_json(told.pop("cell"))
        machine = dict(told.pop("machine"))
        return Preset(cell, ratio_interval=(low, high), machine=machine, **told)
    except (LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{where} is no preset ({error}); tune anew") from None
    except BadInput:
        raise
    except (WorkbenchError, ValueError) as error:
        raise BadInput(f"{where}: {error}; tune anew") from None
