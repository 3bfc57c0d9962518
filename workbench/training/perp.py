"""Retrain a pruned network a little, without giving its zeros back: PERP's recipe.

*Idea*: after pruning most of the loss comes back from very few numbers: the gains of the norms, and
low-rank updates that live where weights are left.

*Paper*: Zimmer et al. 2023 (arXiv 2312.15230, version 4): the selective subsets, LoRA-Prune,
ScaleLoRA and MaskLoRA; retraining on text. Their reconstruction
block by block is not here.

*Deviations*: the mask is the mask, not "whatever is not zero", so a kept weight may be zero and a
kept zero may learn. Linear layers of these families have no biases, so ``norms`` is all that the
paper's "biases and norms" has here. LoRA lives in a parametrisation of the weight instead of an
adapter library, so it is merged by leaving it. ``full`` trains every kept weight, for comparison.
Experts' fused tensors are not trained.

*Cost*: ``steps`` forward and backward passes; a third more memory than the weights in ``full``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import nn
from torch.nn.utils import parametrize

from workbench.core.errors import BadInput, BadKnob
from workbench.core.masks import MaskSet
from workbench.models.masking import Edit
from workbench.models.model import Model
from workbench.models.units import Matrix, expanded, matrices

VARIANTS = ("none", "lora", "lora_prune", "scale_lora", "mask_lora", "full")
DIVERGED = 3.0  # times the first loss


@dataclass(frozen=True)
class PerpSettings:
    """What is trained, and how long.

    Args:
        norms: the gains of every norm.
        variant: of the update of the matrices; ``lora`` fills the zeros when merged.
        rank: of the update; its scale is alpha / rank with alpha = 2 rank.
        steps: of AdamW; a tenth is warm-up, then the rate falls to zero.
        batch_rows: rows a step.
        learning_rate: peak; 0 = a good one for the variant.

    Raises:
        BadKnob: nothing to train, or an unknown variant.
    """

    norms: bool = True
    variant: str = "mask_lora"
    rank: int = 8
    steps: int = 100
    batch_rows: int = 8
    learning_rate: float = 0.0
    seed: int = 5

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise BadKnob(f"variant={self.variant!r}: choose one of {', '.join(VARIANTS)}")
        if self.variant == "none" and not self.norms:
            raise BadKnob("variant='none' with norms=False trains nothing; switch one of them on")
        if self.rank < 1 or self.steps < 1 or self.batch_rows < 1:
            raise BadKnob("rank, steps and batch_rows must be 1 or more")

    @property
    def rate(self) -> float:
        """The learning rate in use."""
        defaults = {"none": 2e-2, "full": 1e-3, "scale_lora": 3e-4}
        return self.learning_rate or defaults.get(self.variant, 3e-3)


@dataclass
class Recovery:
    """What retraining gave.

    Args:
        curve: (step, training loss in nats).
        trainable: numbers that were trained.
        zeros_before, zeros_after: in the pruned matrices; they differ only for ``lora``.
        tensors: what changed, by name, ready to be put on the network again.
        note: what a person should know, e.g. why it ended early.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    trainable: int = 0
    zeros_before: int = 0
    zeros_after: int = 0
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    note: str = ""

    def put(self, model: Model, edit: Edit) -> None:
        """Write the trained tensors into the network."""
        own = dict(model.network.named_parameters())
        for name, value in self.tensors.items():
            edit.put(own[name].detach(), value.to(own[name].device))


class Update(nn.Module):
    """W -> what the variant makes of it; leaving the parametrisation merges it.

    Shapes: W and mask ``[out in]``, A ``[r in]``, B ``[out r]``.
    """

    def __init__(self, weight: torch.Tensor, mask: torch.Tensor, variant: str, rank: int):
        super().__init__()
        self.variant, self.scale = variant, 2.0
        self.register_buffer("mask", mask.to(weight))
        if variant == "full":
            return
        out, wide = weight.shape
        if variant == "scale_lora":
            start = torch.full((rank, wide), rank**-0.5)
            other = torch.full((out, rank), rank**-0.5)
        else:
            start = torch.empty(rank, wide)
            nn.init.kaiming_uniform_(start, a=5**0.5)
            other = torch.zeros(out, rank)
        self.a = nn.Parameter(start.to(weight))
        self.b = nn.Parameter(other.to(weight))
        self.merging = False

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.variant == "full":
            return weight * self.mask
        update = self.b @ self.a
        if self.variant == "scale_lora":
            return weight * update
        masked = self.variant == "mask_lora" or (self.variant == "lora_prune" and self.merging)
        return weight + self.scale * (self.mask * update if masked else update)


def norms_of(network: nn.Module) -> dict[str, nn.Parameter]:
    """The gains (and shifts) of every norm: families name their classes differently."""
    found = {}
    for name, module in network.named_modules():
        if type(module).__name__.endswith("Norm"):
            for part, value in module.named_parameters(recurse=False):
                found[f"{name}.{part}"] = value
    return found


def _trained(model: Model) -> list[Matrix]:
    return [one for one in matrices(model).values() if isinstance(one.module, nn.Linear)]


@contextmanager
def updated(model: Model, masks: MaskSet, settings: PerpSettings) -> Iterator[list[nn.Parameter]]:
    """The network with the chosen numbers trainable; on exit they are merged and frozen again."""
    network, full = model.network, expanded(model, masks)
    network.requires_grad_(False)
    chosen: list[Any] = list(norms_of(network).values()) if settings.norms else []
    places = [] if settings.variant == "none" else _trained(model)
    homes = [one.module.weight.data for one in places]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for one in places:
            kept = full.weights.get(one.name, torch.ones(one.weight.shape, dtype=torch.bool))
            update = Update(one.weight, kept, settings.variant, settings.rank)
            parametrize.register_parametrization(one.module, "weight", update, unsafe=True)
            if settings.variant == "full":
                chosen.append(one.module.parametrizations.weight.original)
            else:
                chosen += list(update.parameters())
    for number in chosen:
        number.requires_grad_(True)
    try:
        yield chosen
    finally:
        with torch.no_grad():
            for one, home in zip(places, homes, strict=True):
                one.module.parametrizations.weight[0].merging = True
                parametrize.remove_parametrizations(one.module, "weight")
                weight: Any = one.module.weight
                home.copy_(weight)  # torch gave it other memory, where no undo looks
                weight.data = home
        network.requires_grad_(False)
        network.eval()


def perp(
    model: Model,
    masks: MaskSet,
    rows: Int[torch.Tensor, "b t"],
    settings: PerpSettings | None = None,
    *,
    listener: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Recovery:
    """Retrain a network that the masks are applied to; it keeps what it learnt.

    Args:
        masks: of the network, already applied (:func:`workbench.models.masking.apply_masks`).
        rows: training text as tokens.
        listener: hears step, steps and loss after each step.
        stopped: asked after each step; true ends the training and keeps what is there.

    Raises:
        BadInput: too little text.
    """
    settings = settings or PerpSettings()
    if rows.shape[0] < 1 or rows.shape[1] < 8:
        raise BadInput(
            f"training text: {rows.shape[0]} rows of {rows.shape[1]} tokens; give a few hundred"
            " rows of 128"
        )
    before = {name: value.detach().clone() for name, value in model.network.named_parameters()}
    found = Recovery(zeros_before=_zeros(model, masks))
    with torch.inference_mode(False), torch.enable_grad():
        with updated(model, masks, settings) as chosen:
            found.trainable = sum(number.numel() for number in chosen)
            _train(model, rows, settings, found, listener, stopped)
    found.zeros_after = _zeros(model, masks)
    found.tensors = _changed(before, model.network)
    return found


def _zeros(model: Model, masks: MaskSet) -> int:
    """Zeros where the masks keep nothing."""
    every = matrices(model)
    full = expanded(model, masks).weights
    return sum(int((every[n].weight.cpu()[~mask] == 0).sum()) for n, mask in full.items())


def _changed(before: Mapping[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
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
    found: Recovery,
    listener: Callable[[int, int, float], None],
    stopped: Callable[[], bool],
) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    class Live(TrainerCallback):
        """Feeds the listener; ends the training when told to, or when it diverges."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> Any:
            if logs and "loss" in logs:
                loss = float(logs["loss"])
                found.curve.append((state.global_step, loss))
                listener(state.global_step, state.max_steps, loss)
                if not loss < DIVERGED * found.curve[0][1]:
                    found.note = (
                        f"Stopped at step {state.global_step}: the loss rose to {loss:.2f} nats"
                        " (it diverges); use a smaller learning rate."
                    )
                    control.should_training_stop = True
            return control

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            if stopped():
                found.note = f"Stopped after {state.global_step} of {state.max_steps} steps."
                control.should_training_stop = True
            return control

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_rows,
            learning_rate=settings.rate,
            weight_decay=0.0,
            lr_scheduler_type="linear",
            warmup_steps=max(1, settings.steps // 10),
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            seed=settings.seed,
            data_seed=settings.seed,
            report_to=[],
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            use_cpu=model.torch_device.type == "cpu",
            log_level="error",
        )
        data: Any = [{"input_ids": row, "labels": row} for row in rows]
        trainer = Trainer(model.network, arguments, train_dataset=data, callbacks=[Live()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
