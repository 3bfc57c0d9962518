"""A product of two thin matrices beside each weight: what all other adapters are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.adapter import TARGETS, TargetShape, chosen, module_names
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_forms import peft_config


@method(
    "adapter",
    title="LoRA",
    paper=Paper("LoRA: Low-Rank Adaptation of Large Language Models", 2021, "2106.09685"),
)
class Lora:
    """y = W x + alpha / r * B A x, with B = 0 at the start.

    *Idea*: what fine-tuning changes has low rank, so only two thin matrices are trained, and they
    can be added into the weight afterwards.

    *Deviations*: none; peft's own tuner. ``dora`` and ``rslora`` are peft's variants of it
    (2402.09353, 2312.03732).

    *Cost*: r (d_in + d_out) parameters a matrix; two thin products a pass until merged.
    """

    zero_init = True
    linear = True

    r: int = knob(8, low=1, high=256, unit="ranks", help="Rank of each update.")
    alpha: float = knob(
        16.0, low=0.5, high=512.0, step=0.5, help="The update is scaled by alpha / r."
    )
    dropout: float = knob(0.0, low=0.0, high=0.9, step=0.05, help="Of the update's input.")
    targets: str = knob("query and value", choices=TARGETS, help="Which matrices are changed.")
    modules: str = knob("", help="Names of modules, with commas; they replace the targets.")
    dora: bool = knob(False, help="Train each column's length apart from its direction (DoRA).")
    rslora: bool = knob(False, help="Scale by alpha / sqrt(r), so that rank is not strength.")

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """peft's LoraConfig."""
        wanted = chosen(shapes, self.targets, self.modules)
        return peft_config(
            "LORA",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=module_names(shapes, wanted),
            use_dora=self.dora,
            use_rslora=self.rslora,
        )

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """Sum of r (d_in + d_out); DoRA has d_out lengths a matrix more."""
        wanted = chosen(shapes, self.targets, self.modules)
        return sum(self.r * (s.d_in + s.d_out) + self.dora * s.d_out for s in wanted)
