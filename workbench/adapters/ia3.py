"""One factor for each key, value and inner feed-forward channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.adapter import TargetShape, module_names
from workbench.core.errors import BadKnob
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_forms import peft_config

_ATTENTION = ("k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn")
_FEEDFORWARD = ("down_proj", "fc2", "dense_4h_to_h", "mlp.c_proj")


@method(
    "adapter",
    title="IA3",
    paper=Paper(
        "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
        2022,
        "2205.05638",
    ),
)
class Ia3:
    """Multiply keys, values and the feed-forward's inner activations by learned factors.

    *Idea*: no new matrix at all; a vector of ones that learns which channels matter.

    *Deviations*: none; peft's own tuner. Where query, key and value are one matrix all three are
    scaled. The strength slider goes from 1 (the base) to the learned factors and beyond. A bias is
    scaled along with its output; as a change of the weights (pictures, operations) it is left out.

    *Cost*: d_out parameters for a key or value matrix, d_in for a feed-forward one.
    """

    zero_init = True
    linear = True

    feedforward: bool = knob(True, help="Scale the inner feed-forward channels as well.")

    def _wanted(self, shapes: Sequence[TargetShape]) -> tuple[list[TargetShape], list[TargetShape]]:
        inside = [shape for shape in shapes if shape.layer >= 0]
        attention = [s for s in inside if s.leaf in _ATTENTION and "mlp" not in s.name]
        feedforward = [s for s in inside if s.name.endswith(_FEEDFORWARD)]
        if not attention:
            raise BadKnob("ia3: this model has no key and value matrices that are known here")
        return attention, feedforward if self.feedforward else []

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """peft's IA3Config."""
        attention, feedforward = self._wanted(shapes)
        inner = module_names(shapes, feedforward) if feedforward else []
        return peft_config(
            "IA3",
            target_modules=[*module_names(shapes, attention), *inner],
            feedforward_modules=inner,
        )

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """One for each scaled channel."""
        attention, feedforward = self._wanted(shapes)
        return sum(s.d_out for s in attention) + sum(s.d_in for s in feedforward)
