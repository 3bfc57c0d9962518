"""What the adapter lab opens on: a LoRA of the embedded target, trained, swept and followed.

Record it again with ``python -m widgets.labs.adapters.recorded`` (about two minutes).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from widgets.labs import recordings
from widgets.labs.adapters.shelf import Entry
from workbench.training.adapter import AdapterProgress, Measured

NAME = "adapters.json"
MODEL = "zoo:target"
SETTINGS = {"steps": 60, "rows": 4, "data": "asyncio"}


class Recording(msgspec.Struct, frozen=True):
    """An adapter without its tensors, and what was measured with it."""

    said: str
    kind: str
    parameters: int
    curve: list[tuple[int, float]]
    measured: list[Measured]
    realigned: list[tuple[int, float]]
    sweeps: dict[str, list[tuple[float, float]]]
    norms: dict[int, float]
    spectrum: dict[int, dict[str, list[float]]]

    @property
    def entry(self) -> Entry:
        """As it would stand on the shelf."""
        progress = AdapterProgress(measured=self.measured)
        progress.curve = list(self.curve)
        spectrum = {
            layer: {name: tuple(values) for name, values in one.items()}
            for layer, one in self.spectrum.items()
        }
        more: dict[str, Any] = {"progress": progress}
        return Entry(
            "recorded", self.kind, None, {}, {}, self.parameters, self.norms, spectrum, **more
        )


@cache
def recording() -> Recording | None:
    """The recorded adapter; None where the package was installed without it."""
    return recordings.read(NAME, Recording)


def record() -> Recording:
    """Train, re-align and sweep in the lab's own controller."""
    from widgets.labs.adapters.controller import AdapterLab

    lab = AdapterLab(MODEL, "zoo:draft")
    for key, value in SETTINGS.items():
        lab.change(key, value)
    for verb in (lab.train, lab.realign, lab.sweep):
        verb()
        if not lab.worker.wait(900) or lab.contents()["error"]:
            raise RuntimeError(f"the adapter to record went wrong: {lab.contents()['error']}")
    entry, again = lab.entry("first"), lab.realigned
    assert entry is not None and again is not None  # trained and re-aligned above
    spectrum = {
        layer: {name: [v for v in values if v > 1e-6 * values[0]] for name, values in one.items()}
        for layer, one in entry.spectrum.items()
    }
    said = f"LoRA of rank {lab.settings['adapter.lora.r']}, {SETTINGS['steps']} steps on"
    done = Recording(
        f"{said} {SETTINGS['data']}, {MODEL}",
        entry.kind,
        entry.parameters,
        list(entry.progress.curve),
        list(entry.progress.measured),
        [(step, rate) for step, rate in again.curve],
        lab.sweeps,
        dict(entry.norms),
        spectrum,
    )
    lab.close()
    return done


if __name__ == "__main__":
    recordings.write(NAME, record())
