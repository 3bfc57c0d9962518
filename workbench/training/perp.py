"""Retrain a pruned network a little, without giving its zeros back: PERP's recipe.

*Idea*: after pruning most of the loss comes back from very few numbers: the gains of the norms, and
low-rank updates that live where weights are left.

*Paper*: Zimmer et al. 2023 (arXiv 2312.15230, versions 3 and 4): the selective subsets, LoRA-Prune,
ScaleLoRA and MaskLoRA; retraining on text. Their reconstruction block by block is
:mod:`workbench.training.reconstruction`.

*Deviations*: the mask is the mask, not "whatever is not zero", so a kept weight may be zero and a
kept zero may learn. ``norms`` are gains and shifts of norms. The biases of linear layers, which
most of these families do not have (GPT-2, OPT and Qwen2 do), and the head, which is optional in the
paper, are not trained. LoRA lives in a parametrisation of the weight instead of an adapter library,
so it is merged by leaving it. ``full`` trains every kept weight, for comparison. Experts' fused
tensors and GPT-2's transposed matrices are not trained. Defaults are for ten million parameters:
rank 8 where theirs is 16, rates of 3e-4 to 2e-2 by variant where theirs is 5e-4; alpha is twice the
rank, and a tenth of the steps is warm-up, as theirs. Going on takes up the unmerged numbers and the
optimiser's moments; each part has a warm-up and a decay of its own.

*Cost*: ``steps`` forward and backward passes; a third more memory than the weights in ``full``.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import nn

from workbench.core.errors import BadInput, BadKnob
from workbench.core.inference import inference_mode
from workbench.core.masks import MaskSet
from workbench.models.model import Model
from workbench.models.units import expanded, matrices
from workbench.training.masked_updates import (
    VARIANTS,
    PerpSettings,
    linear_matrices,
    norms_of,
    updated,
)
from workbench.training.plain import Logits, TokenRows, quiet

__all__ = ["VARIANTS", "PerpSettings", "Recovery", "norms_of", "perp", "updated"]
DIVERGED = 3.0  # times the first loss


class Unmerged(NamedTuple):
    """Where a training stood before its merge.

    Args:
        settings: it was trained with.
        base: what the changed parameters held before it, by name.
        numbers: that were trained, in their order.
        moments: of the optimiser.
    """

    settings: PerpSettings
    base: dict[str, torch.Tensor]
    numbers: list[torch.Tensor]
    moments: dict[int, Any]

    def goes_on_with(self, settings: PerpSettings) -> bool:
        """Whether another training trains the same numbers."""
        mine, its = self.settings, settings
        ranked = its.variant not in ("none", "full")
        same = (mine.norms, mine.variant) == (its.norms, its.variant)
        return same and (mine.rank == its.rank or not ranked)


class BlockError(NamedTuple):
    """Mean squared error of one block's output before and after its repair."""

    layer: int
    before: float
    after: float


@dataclass
class Recovery:
    """What retraining gave.

    Args:
        curve: (step, training loss in nats; block by block the squared error).
        trainable: numbers that were trained.
        zeros_before, zeros_after: in the pruned matrices; they differ only for ``lora``.
        tensors: what changed, by name.
        note: what a person should know, e.g. why it ended early.
        state: to go on from; None where that is not possible.
        blocks: errors of the blocks, of a reconstruction.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    trainable: int = 0
    zeros_before: int = 0
    zeros_after: int = 0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    note: str = ""
    state: Unmerged | None = None
    blocks: list[BlockError] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Trained so far, all parts together."""
        return self.curve[-1][0] if self.curve else 0

    def weights(self, model: Model) -> dict[str, torch.Tensor]:
        """What changed, ready for :class:`workbench.models.prune.Pruned`: matrices by name."""
        known = {f"{one.name}.weight": one.name for one in linear_matrices(model)}
        return {known.get(name, name): value for name, value in self.tensors.items()}


def perp(
    model: Model,
    masks: MaskSet,
    rows: Int[torch.Tensor, "b t"],
    settings: PerpSettings | None = None,
    *,
    going_on: Recovery | None = None,
    listener: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Recovery:
    """Retrain a network that the masks are applied to; it keeps what it learnt.

    Args:
        masks: of the network, already applied (:func:`workbench.models.masking.apply_masks`).
        rows: training text as tokens.
        going_on: an earlier training of this network, under the same masks, to go on from.
        listener: hears step, steps and loss after each step.
        stopped: asked after each step; true ends the training and keeps what is there.

    Raises:
        BadInput: too little text.
        BadKnob: an earlier training of other numbers.
        Mismatch: a variant that this family's matrices cannot have.
    """
    settings = settings or PerpSettings()
    check_rows(rows)
    earlier = _unmerged(going_on, settings)
    if earlier is not None:
        put_back(model.network, earlier.base)
    before = {name: value.detach().clone() for name, value in model.network.named_parameters()}
    found = Recovery(zeros_before=zeros_of(model, masks))
    found.curve = list(going_on.curve) if going_on is not None else []
    with inference_mode(False), torch.enable_grad():
        with updated(model, masks, settings) as chosen:
            found.trainable = sum(number.numel() for number in chosen)
            moments = _train(model, rows, settings, chosen, earlier, found, listener, stopped)
            numbers = [number.detach().clone() for number in chosen]
    found.zeros_after = zeros_of(model, masks)
    found.tensors = changed_since(before, model.network)
    if all(bool(number.isfinite().all()) for number in numbers):
        base = {name: before[name] for name in found.tensors}
        found.state = Unmerged(settings, base, numbers, moments)
    return found


def check_rows(rows: torch.Tensor) -> None:
    """Refuse too little text."""
    if rows.shape[0] < 1 or rows.shape[1] < 8:
        raise BadInput(
            f"training text: {rows.shape[0]} rows of {rows.shape[1]} tokens; give a few hundred"
            " rows of 128"
        )


def _unmerged(going_on: Recovery | None, settings: PerpSettings) -> Unmerged | None:
    if going_on is None:
        return None
    if going_on.state is None or not going_on.state.goes_on_with(settings):
        raise BadKnob(
            f"going_on: cannot go on with norms={settings.norms}, variant={settings.variant!r},"
            f" rank={settings.rank} from a training of other numbers, or one that diverged; begin"
            " anew"
        )
    return going_on.state


@torch.no_grad()
def put_back(network: nn.Module, old: Mapping[str, torch.Tensor]) -> None:
    """Give parameters what they held, in the memory that they have."""
    own = dict(network.named_parameters())
    for name, value in old.items():
        own[name].copy_(value)


def zeros_of(model: Model, masks: MaskSet) -> int:
    """Zeros where the masks keep nothing."""
    every = matrices(model)
    full = expanded(model, masks).weights
    return sum(int((every[n].weight.cpu()[~mask] == 0).sum()) for n, mask in full.items())


def changed_since(
    before: Mapping[str, torch.Tensor], network: nn.Module
) -> dict[str, torch.Tensor]:
    """Copies of the parameters that are not what they were."""
    after = dict(network.named_parameters())
    return {
        name: after[name].detach().clone()
        for name, old in before.items()
        if not torch.equal(old, after[name])
    }


def _train(
    model: Model,
    rows: torch.Tensor,
    settings: PerpSettings,
    chosen: list[nn.Parameter],
    earlier: Unmerged | None,
    found: Recovery,
    listener: Callable[[int, int, float], None],
    stopped: Callable[[], bool],
) -> dict[int, Any]:
    """Train, and return the optimiser's moments."""
    from transformers import TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    optimiser = torch.optim.AdamW(chosen, lr=settings.rate, weight_decay=0.0)
    if earlier is not None:
        with torch.no_grad():
            for number, old in zip(chosen, earlier.numbers, strict=True):
                number.copy_(old)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": earlier.moments})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_rows,
            learning_rate=settings.rate,
            weight_decay=0.0,
            lr_scheduler_type="linear",
            warmup_steps=settings.steps // 10,  # 1 of 1 would have rate 0
            logging_strategy="no",
            save_strategy="no",
            **quiet(model, settings.seed + found.steps),  # other rows than in the parts before
        )
        trainer = _trainer_class()(
            Logits(model.network),
            arguments,
            train_dataset=TokenRows(rows),
            data_collator=lambda batch: {"ids": torch.stack(batch)},
            callbacks=[_live(found, listener, stopped)],
            optimizers=(optimiser, None),
            found=found,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return copy.deepcopy(optimiser.state_dict()["state"])


def _trainer_class() -> Any:
    from torch.nn import functional as F
    from transformers import Trainer

    class NextToken(Trainer):
        """The Trainer with the next-token loss, which it notes."""

        def __init__(self, *args: Any, found: Recovery, **more: Any):
            self.found, self.before = found, found.steps
            super().__init__(*args, **more)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            """Mean cross-entropy of the rows."""
            logits = model(inputs["ids"])[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), inputs["ids"][:, 1:].flatten())
            step = self.before + self.state.global_step + 1
            self.found.curve.append((step, float(loss.detach())))
            return (loss, {}) if return_outputs else loss

    return NextToken


def _live(found: Recovery, listener: Callable, stopped: Callable[[], bool]) -> Any:
    from transformers import TrainerCallback

    first = len(found.curve)

    class Live(TrainerCallback):
        """Feeds the listener; ends the training when told to, or when it diverges."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            loss = found.curve[-1][1]
            listener(state.global_step, state.max_steps, loss)
            if not loss < DIVERGED * found.curve[first][1]:
                found.note = (
                    f"Stopped at step {state.global_step}: the loss rose to {loss:.2f} nats"
                    " (it diverges); use a smaller learning rate."
                )
            elif stopped():
                found.note = f"Stopped after {state.global_step} of {state.max_steps} steps."
            control.should_training_stop = control.should_training_stop or bool(found.note)
            return control

    return Live()
