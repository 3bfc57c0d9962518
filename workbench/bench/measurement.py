"""One cell on one prompt, once: everything that is counted, timed and weighed about it.

The four things called acceptance keep the names of :mod:`workbench.core.trace`: ``mean_accepted``,
``mean_emitted``, ``acceptance_ratio`` and ``node_ratio``.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from workbench.bench.datasets import BenchPrompt
from workbench.bench.grid import Cell, Setting
from workbench.bench.peers import repeated_ratio
from workbench.core.crossed import Transfer
from workbench.core.errors import Mismatch, ModelError, UnknownMethod
from workbench.core.trace import NO_TOKEN, Round, Trace
from workbench.engine.run import Run, RunSettings
from workbench.models.load import Model, load

REFUSALS = (Mismatch, ModelError, UnknownMethod)  # of a cell as such, whatever the prompt
_warm: set[tuple[str, Setting]] = set()
_refused: dict[tuple[str, Setting], str] = {}  # found in this process; not tried again


@lru_cache(maxsize=8)
def model_of(name: str, device: str | None, dtype: str | None) -> Model:
    """A checkpoint, loaded once in each process."""
    return load(name, device=device, dtype=dtype)


def settings_of(cell: Cell, setting: Setting, text: str, repeat: int, place: int) -> RunSettings:
    """The run of one measurement."""
    beside = cell.draft_device or setting.device
    return RunSettings(
        model_of(cell.target, setting.device, setting.dtype),
        text,
        cell.make("drafter"),
        cell.make("verifier"),
        cell.make("policy"),
        setting.sampling(cell, repeat, place),
        setting.new_tokens,
        model_of(cell.draft, beside, setting.dtype) if cell.draft else None,
        record_top=0,
        schedule=cell.make("schedule"),
    )


def warm_up(cell: Cell, setting: Setting, text: str) -> None:
    """The first run of a cell in a process pays for what is compiled, opened or allocated."""
    if (cell.id, setting) not in _warm:
        run = Run(settings_of(cell, setting, text, 0, 0))
        for _ in run.rounds():
            pass
        _warm.add((cell.id, setting))


def measure(
    cell: Cell, setting: Setting, prompt: BenchPrompt, repeat: int, place: int, carried: Any = None
) -> tuple[dict[str, Any], Any]:
    """Decode once.

    Args:
        place: of the prompt in its set; with ``repeat`` it decides the seed.
        carried: the drafter's state after the prompt before, or None.

    Returns:
        What was measured, ready for JSON, and the drafter's state at the end.
    """
    torch.set_num_threads(setting.threads)
    warm_up(cell, setting, prompt.text)
    began = time.perf_counter()
    settings = settings_of(cell, setting, prompt.text, repeat, place).change(carried=carried)
    run = Run(settings)
    if setting.ignore_eos:
        run.decoding.eos_ids = frozenset()
    cpu, own, wall = time.process_time(), time.thread_time(), time.perf_counter()
    done = list(run.rounds())
    if settings.model.torch_device.type == "cuda":
        torch.cuda.synchronize(settings.model.torch_device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    own = time.thread_time() - own
    trace = run.trace()
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "beside_s": max(0.0, cpu - own) if _alone(cell, setting) else None,
        **_counts(trace),
        **_times(done, run.decoding.prefill_ms),
        **positions(done),
        "repeated_4gram_ratio": repeated_ratio(trace.new_tokens),
        "log_likelihood": log_likelihood(settings.model, run.prompt_tokens, trace.new_tokens),
        "lossless": settings.verifier.lossless,
        "finish": run.finish,
        "text_tokens": trace.new_tokens,
        "target_fingerprint": settings.model.fingerprint,
        "spent_s": time.perf_counter() - began,
    }, run.drafting


def _alone(cell: Cell, setting: Setting) -> bool:
    """Whether one thread does all the work, so that what others do beside it can be told."""
    return setting.threads == 1 and cell.schedule.name == "sequential"


def _counts(trace: Trace) -> dict[str, Any]:
    """Tokens, rounds, forwards, the four acceptances, and expected beside realised emission."""
    done, summary = trace.rounds, trace.summary
    ends = sum(r.bonus != NO_TOKEN for r in done)
    return {
        "tokens": summary["new_tokens"],
        "rounds": len(done),
        "target_forwards": sum(r.forwards.target for r in done),
        "draft_forwards": sum(r.forwards.draft for r in done),
        "accepted_tokens": sum(r.accepted for r in done),
        "drafted_levels": sum(max(r.depth, default=0) for r in done),
        "drafted_nodes": sum(len(r.tokens) for r in done),
        "mean_accepted": summary["mean_accepted"],
        "mean_emitted": summary["mean_emitted"],
        "acceptance_ratio": summary["acceptance_ratio"],
        "node_ratio": summary["node_ratio"],
        "expected_tokens": sum(r.expected_emitted for r in done),
        "realised_tokens": sum(r.accepted for r in done) + ends,
    }


def _times(done: list[Round], prefill_ms: float) -> dict[str, Any]:
    total, inside = sum(r.ms.total for r in done), sum(r.forward_ms for r in done)
    split = {f"{p}_ms": sum(getattr(r.ms, p) for r in done) for p in ("draft", "verify", "commit")}
    moved = Transfer.total(r.transfer for r in done) or Transfer(0.0, 0)
    return {
        "prefill_ms": prefill_ms,
        "transfer_ms": moved.ms,
        "transfer_bytes": moved.bytes,
        **split,
        "other_ms": sum(r.ms.other for r in done),
        "outside_forward_ratio": 1 - inside / total if total else 0.0,
        "round_ms": [round(r.ms.total, 4) for r in done],
    }


def positions(done: list[Round]) -> dict[str, list[int]]:
    """How often a token was tried at each depth of the accepted path, and how often one was kept.

    Depth d is tried where the path came as far as d - 1 and something was drafted below it.
    """
    tried: list[int] = []
    kept: list[int] = []
    for r in done:
        drafted = set(r.parent)
        for depth in range(len(r.path) + 1):
            if (r.path[depth - 1] if depth else -1) not in drafted:
                break
            if depth == len(tried):
                tried.append(0)
                kept.append(0)
            tried[depth] += 1
            kept[depth] += depth < len(r.path)
    return {"tried_at_depth": tried, "kept_at_depth": kept}


def log_likelihood(model: Model, prompt: list[int], new: list[int]) -> float | None:
    """The target's own log-likelihood of the text in nats a token, at temperature 1.

    For a lossless rule it is the target's own level; what a lossy rule loses shows below that.
    """
    if not new:
        return None
    with model.lock:
        session = model.session()
        session.sync(prompt[:-1])
        logits = session.forward([prompt[-1], *new[:-1]]).logits.double()
    tokens = torch.tensor(new, device=logits.device)
    mean = float(logits.log_softmax(-1)[torch.arange(len(new)), tokens].mean())
    return mean if math.isfinite(mean) else None


@dataclass(frozen=True, eq=False)
class Block:
    """What one process measures in a row, so that ratios are taken among neighbours.

    Args:
        cells: of one target and sampling, plain decoding first.
        prompts: (place in the set, prompt); one, or all of a repeat where states are carried.
        pending: (cell id, prompt name) still to be measured.
    """

    setting: Setting
    cells: tuple[Cell, ...]
    prompts: tuple[tuple[int, BenchPrompt], ...]
    repeat: int
    pending: frozenset[tuple[str, str]]
    session: str = ""

    def record(self, cell: Cell, prompt: BenchPrompt, state: str, **more: Any) -> dict[str, Any]:
        """The head that all records share."""
        return {
            "cell": cell.id,
            "prompt": prompt.name,
            "kind": prompt.kind,
            "repeat": self.repeat,
            "state": state,
            "session": self.session,
            "worker": f"{platform.node()}:{os.getpid()}",
            **more,
        }


def measure_block(block: Block) -> Iterator[dict[str, Any]]:
    """Measure what is pending, one record each: done, failed, refused, or plain ``again``.

    The order of the cells alternates from prompt to prompt and from repeat to repeat. Where a
    block is taken up again in a later session, plain decoding is measured anew, as ``again``:
    nothing is divided by a time of another session.
    """
    carried: dict[str, Any] = {}
    lost: dict[str, str] = {}  # cell id -> why the rest of it is not measured
    for place, prompt in block.prompts:
        wanted = {cell.id for cell in block.cells if (cell.id, prompt.name) in block.pending}
        turned = (block.repeat + place) % 2
        for cell in block.cells[::-1] if turned else block.cells:
            again = cell.plain and cell.id not in wanted and bool(wanted)
            replayed = cell.id not in wanted and not again and _replays(block, cell)
            if cell.id in lost:
                if cell.id in wanted and not lost[cell.id].startswith("refused"):
                    yield block.record(cell, prompt, "failed", error=lost[cell.id])
                continue
            if not (cell.id in wanted or again or replayed):
                continue
            record = _one(block, cell, place, prompt, carried)
            if record["state"] == "refused":
                lost[cell.id] = "refused"
            elif record["state"] == "failed" and block.setting.carry:
                lost[cell.id] = f"prompt {prompt.name} before it failed, and states are carried"
            if again and record["state"] == "done":
                record["state"] = "again"
            if cell.id in wanted or again:
                yield record


def _replays(block: Block, cell: Cell) -> bool:
    """Whether earlier prompts of a carried stream must be decoded again to get its state back."""
    mine = any(cell_id == cell.id for cell_id, _ in block.pending)
    return block.setting.carry and mine and hasattr(cell.make("drafter"), "resume")


def _one(block: Block, cell: Cell, place: int, prompt: BenchPrompt, carried: dict) -> dict:
    state = carried.get(cell.id)
    here = (cell.id, block.setting)
    if here in _refused:
        return block.record(cell, prompt, "refused", error=_refused[here])
    try:
        told, left = measure(cell, block.setting, prompt, block.repeat, place, state)
    except REFUSALS as error:
        _refused[here] = str(error)
        return block.record(cell, prompt, "refused", error=str(error))
    except Exception as error:  # one configuration must not end a night's sweep
        return block.record(cell, prompt, "failed", error=f"{type(error).__name__}: {error}")
    if block.setting.carry:
        carried[cell.id] = left
    return block.record(cell, prompt, "done", **told)
