"""Keys and values in front of every text, learnt; no weight of the model changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.adapter import TargetShape, key_value_width
from workbench.core.method import Paper, knob, method
from workbench.models.adapter_forms import peft_config


@method(
    "adapter",
    title="Prefix tuning",
    paper=Paper("Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021, "2101.00190"),
)
class Prefix:
    """Put a few virtual tokens in front of every text and train their keys and values.

    *Idea*: a prompt steers a model without changing it; so learn the best one, and not in words but
    directly as what each layer's attention sees of it.

    *Paper*: Li and Liang 2021 (arXiv 2101.00190): a prefix in every layer, the model frozen; an MLP
    that makes the prefix while it is trained (4.3); a start from real words (7.4).

    *Deviations*: ``project`` is off, as in peft; on, there are several times as many numbers to
    train. Words are drawn from the vocabulary, not chosen. With ``project``
    the MLP starts at random, and a saved prefix is what the MLP made of it, as peft saves it: it
    can be used and trained on, but without the MLP. The strength slider counts each virtual token
    s times in the attention (0 = none), alike in all layers.

    *Cost*: 2 layers x width of the keys numbers a virtual token; each takes a place of the context
    and of the cache. It cannot be merged.
    """

    zero_init = False
    linear = False
    virtual = True

    tokens: int = knob(16, low=1, high=512, unit="virtual tokens", help="Length of the prefix.")
    words: bool = knob(True, help="Start from words of the vocabulary; else at random.")
    project: bool = knob(False, help="Train an MLP that makes the prefix, as published.")
    hidden: int = knob(64, low=1, high=4096, unit="numbers", help="Width of that MLP.")

    def config(self, shapes: Sequence[TargetShape]) -> Any:
        """peft's PrefixTuningConfig; the model's own shape is filled in where it is attached."""
        made = peft_config(
            "PREFIX_TUNING",
            num_virtual_tokens=self.tokens,
            prefix_projection=self.project,
            encoder_hidden_size=self.hidden,
        )
        made.starts_from_words = self.words
        return made

    def parameter_count(self, shapes: Sequence[TargetShape]) -> int:
        """Tokens x 2 layers x width; with an MLP tokens x width and both of its maps."""
        width = key_value_width(shapes)
        made = 2 * (1 + max(shape.layer for shape in shapes)) * width
        if not self.project:
            return self.tokens * made
        return self.tokens * width + (width + 1) * self.hidden + (self.hidden + 1) * made
