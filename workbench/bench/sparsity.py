"""What pruning costs: loss and self-drafting acceptance against sparsity, by layer, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int

from workbench.core.errors import BadInput
from workbench.core.inference import inference_mode
from workbench.core.masks import MaskSet, Pattern
from workbench.core.pruning import PATTERNS, Plan, Pruner
from workbench.engine.dials import held_out
from workbench.models.model import Model
from workbench.models.prune import Pruned, prune
from workbench.models.units import expanded, layers_of, matrices

RATIOS = (0.0, 0.3, 0.5, 0.7, 0.9)
MOST_DRAFTED = 8


class Point(NamedTuple):
    """One pruned state.

    Args:
        ratio: that was asked for.
        sparsity: removed share of all block weights.
        loss_nats: held-out loss of the pruned network.
        acceptance: mean over held-out places of sum_v min(p_v, q_v), p dense and q pruned.
    """

    ratio: float
    sparsity: float
    loss_nats: float
    acceptance: float


def usual(pruner: Pruner, pattern: Pattern) -> Pattern:
    """The pattern if the pruner's units can follow it, else the pruner's own first one."""
    allowed = PATTERNS[pruner.acts_on]
    grouped = pattern.kind == "n_m" and pruner.acts_on == "weights"
    return pattern if grouped or str(pattern) in allowed else Pattern.parse(allowed[0])


def point(
    model: Model,
    dense: Model,
    rows: Int[torch.Tensor, "b t"],
    made: Pruned,
    ratio: float = 0.0,
    temperature: float = 1.0,
) -> Point:
    """Measure what a pruning does to ``model``, which is as it was afterwards."""
    with made.apply(model):
        loss, _, acceptance = held_out(model, rows, dense, temperature)
    sparsity = _removed(model, made.masks)
    return Point(ratio, sparsity, loss, 1.0 if acceptance is None else acceptance)


def _removed(model: Model, masks: MaskSet) -> float:
    """Removed share of all block weights, those without a mask included."""
    full = expanded(model, masks).weights
    total = sum(one.weight.numel() for one in matrices(model).values())
    return sum(int((~mask).sum()) for mask in full.values()) / total


def curve(
    model: Model,
    dense: Model,
    rows: Int[torch.Tensor, "b t"],
    pruner: Pruner,
    pattern: Pattern,
    calibration: Int[torch.Tensor, "c s"],
    ratios: Sequence[float] = RATIOS,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Iterator[Point]:
    """Points of one criterion, from dense to sparse.

    Args:
        model: pruned again for each point, and as it was afterwards.
        dense: an unpruned copy, the target of the self-drafting acceptance.
        rows: held-out tokens.
        calibration: tokens that the criterion hears.
    """
    fits = usual(pruner, pattern)
    fixed = [ratio for ratio in ratios if ratio in (0.0, 0.5)] if fits.kind == "n_m" else ratios
    for index, ratio in enumerate(fixed):
        made = prune(model, pruner, Plan(fits, ratio), calibration)
        yield point(model, dense, rows, made, ratio)
        progress((index + 1) / len(fixed))


def layer_harm(
    model: Model,
    dense: Model,
    rows: Int[torch.Tensor, "b t"],
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[Point]:
    """What dropping each layer alone does; ``ratio`` is the layer's index."""
    count, found = len(layers_of(model)), []
    for layer in range(count):
        kept = torch.ones(count, dtype=torch.bool)
        kept[layer] = False
        made = Pruned(MaskSet(parts={"layers": kept}))
        found.append(point(model, dense, rows, made, layer))
        progress((layer + 1) / count)
    return found


def expected_speed(acceptance: float, cost_ratio: float) -> tuple[float, int]:
    """The best ratio to plain decoding, and the draft length that gives it.

    A chain of g drafted tokens emits (1 - a^(g+1)) / (1 - a) tokens a round for the time of
    1 + g c target passes, if every place accepts with the same chance a.

    Args:
        acceptance: a.
        cost_ratio: c, time of a draft pass over time of a target pass.
    """

    def ratio(drafted: int) -> float:
        emitted = sum(acceptance**place for place in range(drafted + 1))
        return emitted / (1 + drafted * cost_ratio)

    return max((ratio(drafted), drafted) for drafted in range(1, MOST_DRAFTED + 1))


def pass_ratio(
    small: Model, whole: Model, rows: Int[torch.Tensor, "b t"], repeats: int = 5
) -> float:
    """Time of a pass over that of another: the median of pairs measured in turn."""
    ratios = []
    with inference_mode():
        for _ in range(repeats + 1):
            spent = []
            for model in (small, whole):
                began = time.perf_counter()
                model.network(input_ids=rows.to(model.torch_device), use_cache=False)
                if model.torch_device.type == "cuda":
                    torch.cuda.synchronize()
                spent.append(time.perf_counter() - began)
            ratios.append(spent[0] / spent[1])
    return sorted(ratios[1:])[repeats // 2]  # the first pair warms up


def semi_structured_ratio(
    model: Model, masks: MaskSet, tokens: int = 512, repeats: int = 20
) -> dict[str, float]:
    """Time of a 2:4 matrix product through torch's sparse tensors over that of the dense one.

    Args:
        masks: 2:4 masks of the network's matrices.
        tokens: columns of the product.

    Returns:
        The ratio for each matrix that the format can hold, by name.

    Raises:
        BadInput: on a CPU, where no such kernel exists: 2:4 can be judged by its loss only.
    """
    from torch.sparse import to_sparse_semi_structured

    if model.torch_device.type != "cuda":
        raise BadInput(
            f"device={model.device}: 2:4 has no fast kernel on a CPU, so there is no speed-up to"
            " measure here; load the model on CUDA in float16"
        )
    found = {}
    every = matrices(model)
    for name, mask in masks.weights.items():
        weight = every[name].weight.half().contiguous() * mask.to(model.torch_device)
        x = torch.randn(weight.shape[1], tokens, device=weight.device, dtype=weight.dtype)
        try:
            sparse = to_sparse_semi_structured(weight)
            sparse @ x
        except (RuntimeError, ValueError):  # a shape that the kernels' tiles do not fit
            continue
        found[name] = _timed(lambda s=sparse, x=x: s @ x, repeats) / _timed(
            lambda w=weight, x=x: w @ x, repeats
        )
    return found


def _timed(work: Callable[[], Any], repeats: int) -> float:
    for _ in range(3):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)
