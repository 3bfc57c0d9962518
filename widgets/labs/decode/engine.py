"""The few things that the decode lab asks of the engine, as one value.

A lab built by a person uses :func:`engine`; a test passes an ``Engine`` of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from workbench.core.trace import Round

_MODELS: dict[tuple[str, str], Any] = {}  # by name and device
_MODELS_LOCK = threading.Lock()


class NodeLaws(NamedTuple):
    """Chance of a node to be kept by each rule, and what no rule exceeds for it and its siblings.

    ``low`` < ``high`` where the trace does not hold the laws whole.
    """

    by_rule: dict[str, float]
    low: float = 0.0
    high: float = 1.0
    siblings: int = 1


@dataclass(frozen=True)
class Engine:
    """Functions of the engine.

    Args:
        load: name, and a device where it matters -> model; loaded once per process and shared.
        run: (settings, listener) -> a run with start, pause, step, stop, wait, trace, error.
        settings: keyword arguments -> the settings of a run.
        baseline: (model, prompt, sampling, tokens, repeats, progress) -> measured plain decoding.
        laws: (round, node) -> what every rule would do there, from stored numbers.
    """

    load: Callable[..., Any]
    run: Callable[..., Any]
    settings: Callable[..., Any]
    baseline: Callable[..., Any]
    laws: Callable[[Any, int], NodeLaws]


def shared_model(name: str, device: str | None = None) -> Any:
    """A model by name and device, loaded once per process; a second caller waits for the first."""
    from workbench.models.devices import device_of
    from workbench.models.load import load

    place = str(device_of(device))
    with _MODELS_LOCK:
        if (name, place) not in _MODELS:
            _MODELS[name, place] = load(name, device=place)
        return _MODELS[name, place]


def engine() -> Engine:
    """The workbench's own engine; imported here so that a saved trace can be shown without it."""
    from workbench.engine.baseline import measure_plain
    from workbench.engine.live import LiveRun
    from workbench.engine.run import RunSettings

    return Engine(shared_model, LiveRun, RunSettings, measure_plain, node_laws)


def node_laws(round_: Round, node: int) -> NodeLaws:
    """What every rule would do with a recorded node, and the bound for it and its siblings.

    Raises:
        WorkbenchError: the trace was recorded without laws.
    """
    from workbench.engine.replay import acceptance_by_law
    from workbench.engine.sibling_bound import sibling_bound

    return NodeLaws(acceptance_by_law(round_, node), *sibling_bound(round_, node))


def held_out_prompts() -> dict[str, str]:
    """Label -> text of the embedded held-out prompts; empty where they are not installed."""
    from workbench.core.errors import WorkbenchError

    try:
        from workbench.zoo.held_out import KINDS, prompts

        return {f"{KINDS[p.kind]}: {_short(p.name)}": p.text for p in prompts()}
    except (ImportError, OSError, WorkbenchError):
        return {}


def _short(name: str) -> str:
    return name.partition("_")[2].replace("_", " ")


def name_of(model: Any) -> str:
    """A model's name, whether it is loaded or only named."""
    return model if isinstance(model, str) else model.name
