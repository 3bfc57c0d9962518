"""The four dials that every change of a model is read on: loss, speed, acceptance, bytes.

*Idea*: an adapter, a mask or a routing that leaves the loss alone can still ruin speculation, since
the draft was made for the old target. So all benches measure the same four numbers, before and
after, on the same held-out text, with the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch.nn import functional as F

from workbench.core.decoding import Need
from workbench.core.errors import BadInput, Mismatch
from workbench.core.inference import inference_mode
from workbench.core.method import make_method
from workbench.core.sampling import Sampling
from workbench.core.trace import Trace
from workbench.engine.run import Run, RunSettings
from workbench.models.model import Model

_BATCH_ROWS = 8
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Dials:
    """What one state of a model measures.

    Args:
        loss_nats: held-out cross-entropy a token, natural logarithm.
        top1_ratio: share of held-out tokens that are the model's first choice.
        acceptance_ratio: expected acceptance of one draft token: the mean over held-out places of
            sum_v min(p_v, q_v) at the yardstick's temperature. None without a draft model.
        emitted_tokens: tokens a target pass of the drafter's runs; None where none ran.
        tokens_per_s: of these runs, prompt excluded; None likewise.
        weight_bytes: of all parameters and buffers, shared ones once.
        compiled: whether the runs' passes of the model were compiled; what changes its modules
            (an adapter, a hook) puts it back on torch, which is slower for small models.
    """

    loss_nats: float
    top1_ratio: float
    acceptance_ratio: float | None
    emitted_tokens: float | None
    tokens_per_s: float | None
    weight_bytes: int
    compiled: bool = False


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What is measured on; make it once with :func:`yardstick` and reuse it for every change.

    Args:
        rows: held-out token ids, equally long rows.
        prompts: texts that the runs continue; none = no speed and no emitted tokens.
        drafter, verifier, policy: of the runs.
        sampling: of the runs; its temperature also that of the acceptance.
        new_tokens: of each run.

    Shapes: rows ``[b t]``.
    """

    rows: Int[torch.Tensor, "b t"]
    prompts: tuple[str, ...] = ()
    drafter: Any = "draft_model"
    verifier: Any = "multi_round"
    policy: Any = "fixed"
    sampling: Sampling = field(default_factory=lambda: Sampling(0.8, seed=1))
    new_tokens: int = 32


def yardstick(
    model: Model,
    texts: Sequence[str],
    *,
    row_tokens: int = 128,
    most_tokens: int = 2048,
    **settings: Any,
) -> Yardstick:
    """Cut held-out texts into rows of equal length.

    Args:
        texts: one stream after another, in this order.
        row_tokens: of a row; shorter where the texts (or the model's context) are.
        most_tokens: in all rows.
        settings: other fields of :class:`Yardstick`.

    Raises:
        BadInput: less than two tokens of text.
    """
    stream = [token for text in texts if text for token in model.encode_all(text)][:most_tokens]
    length = min(row_tokens, len(stream), model.context_tokens)
    if length < 2:
        raise BadInput(f"texts: hold {len(stream)} tokens; a loss needs two or more")
    count = len(stream) // length
    rows = torch.tensor(stream[: count * length]).view(count, length)
    return Yardstick(rows, **settings)


@inference_mode()
def _logits(model: Model, rows: torch.Tensor) -> torch.Tensor:
    return model.network(input_ids=rows.to(model.torch_device), use_cache=False).logits.float()


def held_out(
    model: Model,
    rows: Int[torch.Tensor, "b t"],
    draft: Model | None = None,
    temperature: float = 1.0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[float, float, float | None]:
    """Loss in nats a token, top-1 rate, and the expected acceptance against ``draft``.

    The acceptance of temperature 0 is the share of places where both have the same first choice.

    Cost: one forward of each model over ``rows``, in batches of eight rows.
    """
    loss = hits = overlap = count = 0.0
    for at in range(0, len(rows), _BATCH_ROWS):
        batch = rows[at : at + _BATCH_ROWS]
        logits = _logits(model, batch)[:, :-1]
        targets = batch[:, 1:].to(logits.device)
        loss += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        hits += (logits.argmax(-1) == targets).sum().item()
        if draft is not None:
            drafted = _logits(draft, batch)[:, :-1].to(logits.device)
            overlap += _overlap(logits, drafted, temperature).sum().item()
        count += targets.numel()
        progress(min(1.0, (at + _BATCH_ROWS) / len(rows)))
    return loss / count, hits / count, None if draft is None else overlap / count


def _overlap(target: torch.Tensor, draft: torch.Tensor, temperature: float) -> torch.Tensor:
    """Sum of min(p, q) at each place; the wider vocabulary's padding has no partner."""
    if temperature <= 0:
        return (target.argmax(-1) == draft.argmax(-1)).float()
    p, q = (target / temperature).softmax(-1), (draft / temperature).softmax(-1)
    shared = min(p.shape[-1], q.shape[-1])
    return torch.minimum(p[..., :shared], q[..., :shared]).sum(-1)


def weight_bytes(model: Model) -> int:
    """Bytes of all parameters and buffers; a tied or shared tensor counts once."""
    seen: dict[int, int] = {}
    for tensor in [*model.network.parameters(), *model.network.buffers()]:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def runs(
    model: Model,
    stick: Yardstick,
    draft: Model | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Trace]:
    """One run for each prompt of the yardstick, none of them recorded for pictures."""
    traces = []
    for index, prompt in enumerate(stick.prompts):
        settings = RunSettings(
            model,
            prompt,
            stick.drafter,
            stick.verifier,
            stick.policy,
            stick.sampling,
            stick.new_tokens,
            draft_model=draft,
            record_top=0,
        )
        run = Run(settings, cancelled)
        for _ in run.rounds():
            pass
        traces.append(run.trace())
        progress((index + 1) / len(stick.prompts))
    return traces


def measure_dials(
    model: Model,
    stick: Yardstick,
    draft: Model | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Progress = lambda line, fraction: None,
) -> Dials:
    """Measure all four dials of the model as it is now.

    Raises:
        Mismatch: the yardstick's drafter needs a draft model and there is none.
    """
    if stick.prompts and draft is None and _wants_draft(stick):
        raise Mismatch(
            f"drafter={stick.drafter!r} needs a draft model; name one, or choose prompt_lookup"
        )
    temperature = stick.sampling.temperature
    loss, top1, acceptance = held_out(
        model, stick.rows, draft, temperature, lambda f: progress("Measuring the held-out loss", f)
    )
    traces = runs(model, stick, draft, cancelled, lambda f: progress("Decoding", f))
    rounds = sum(len(t.rounds) for t in traces)
    emitted = sum(len(t.new_tokens) for t in traces)
    spent_ms = sum(t.total_ms for t in traces)
    return Dials(
        loss,
        top1,
        acceptance,
        emitted / rounds if rounds else None,
        emitted / spent_ms * 1e3 if spent_ms else None,
        weight_bytes(model),
        model.compiled,
    )


def _wants_draft(stick: Yardstick) -> bool:
    return Need.DRAFT in make_method("drafter", stick.drafter).needs
