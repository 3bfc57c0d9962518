"""The adapters of a lab as values: what each is, what it does, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.core.inference import inference_mode
from workbench.models.adapting import Adapters
from workbench.models.tuners.mola import loads
from workbench.models.updates import layer_norms, spectra

LINES = 8  # matrices of a layer whose spectrum is drawn


@dataclass(frozen=True, eq=False)
class Entry:
    """One adapter. Norms, spectra and loads are those at strength 1.

    Args:
        norms: layer -> Frobenius norm of the update.
        spectrum: layer -> matrix -> singular values.
        loads: layer -> share of each expert, of a mixture.
        progress: its training, if it was trained here.
        facts: what an operation said of it.
    """

    name: str
    kind: str
    config: Any
    tensors: Mapping[str, torch.Tensor]
    start: Mapping[str, torch.Tensor]
    parameters: int
    norms: Mapping[int, float]
    spectrum: Mapping[int, Mapping[str, tuple[float, ...]]]
    loads: Mapping[int, list[float]] = field(default_factory=dict)
    progress: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def look_at(adapters: Adapters, name: str, kind: str, rows: torch.Tensor, **more: Any) -> Entry:
    """What there is to know of an attached adapter, at strength 1 and alone."""
    adapters.set_strength(name, 1.0)
    with adapters.alone(name), inference_mode():
        adapters.model.network(input_ids=rows, use_cache=False)
        shares = loads(adapters.model.network, name)
    norms = layer_norms(adapters, name)
    spectrum = {
        layer: dict(list(spectra(adapters, name, layer).items())[:LINES])
        for layer in norms
        if layer >= 0
    }
    return Entry(
        name,
        kind,
        adapters.config(name),
        adapters.state(name),
        dict(adapters.start(name)),
        adapters.parameter_count(name),
        norms,
        spectrum,
        shares,
        **more,
    )


def put_on(adapters: Adapters, entry: Entry) -> None:
    """Attach a value of the shelf again, with the tensors it began with."""
    adapters.put(entry.config, entry.tensors, entry.name, entry.start)


def free_name(kind: str, taken: Mapping[str, Any]) -> str:
    """``lora_1``, ``lora_2`` ...: no dots, and no part of a module's path."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in kind.lower())
    return next(f"{plain}_{n}" for n in range(1, 10_000) if f"{plain}_{n}" not in taken)
