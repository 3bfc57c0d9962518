"""RMoE: a router that is recurrent over depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn

from workbench.core.errors import Mismatch
from workbench.core.method import Paper, knob, method
from workbench.core.routing import Own, Routed, heaviest, law
from workbench.models.attachments import Attachment, load_attachment
from workbench.models.model import Model
from workbench.models.recurrent_gate import RecurrentGates


@method(
    "router",
    title="RMoE (recurrent router)",
    paper=Paper("Layerwise Recurrent Router for Mixture-of-Experts", 2024, "2408.06793", "3"),
)
class Recurrent:
    """Let each layer's router see how the same token was routed in the layers below.

    *Idea*: u = W1 x in every layer, h = GRU(u, h of the layer below) with one cell for all layers,
    logits = W2 h. The recurrence is over depth and not over the text, so tokens stay independent
    and decoding needs no further state.

    *Deviations*: made for fine-tuning: by default W2 h is added to the trained linear router and W2
    starts at zero (W1 with a deviation of d^-1/2), so the mixture begins exactly as it was;
    ``linear`` off is the paper's router, which has to learn everything (both start with 0.02). The
    state has 32 numbers for streams of a few hundred, the paper's 256. Weights are normalised as
    the family does it. Layers without experts pass the state on. The released code also has an
    Elman cell in place of the GRU. A head that was trained beside a mixture (`workbench zoo train
    recurrent`) is taken up where it fits.

    *Shapes*: W1 ``[width d]`` and W2 ``[e width]`` in each layer.

    *Cost*: layers * width * (d + e) + 6 width² + 6 width parameters more; one cell a layer and
    token. A pass that goes on half-way up the layers finds the states of its rows again; a layer
    that is run on its own is refused, and so gradient checkpointing, which does that.
    """

    width: int = knob(32, low=1, high=512, unit="numbers", help="Of the state.")
    strength: float = knob(1.0, low=0.0, high=1.0, step=0.05, help="Of what comes from below.")
    cut: int = knob(-1, low=-1, high=256, help="Layer where the state starts anew; -1 = none.")
    linear: bool = knob(True, help="Add to the trained router instead of replacing it.")
    heads: str = knob("zoo", help="`zoo` = the embedded head, `untrained`, or a folder.")

    def route(self, logits: Float[torch.Tensor, "t e"], own: Own) -> Routed:
        """The family's rule on the gates' logits."""
        return heaviest(law(logits), self.bounds(logits.shape[-1], own)[1], own.normalised)

    def sums_to_one(self, own: Own) -> bool:
        return own.normalised

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        return min(own.k, experts), min(own.k, experts)

    def install(self, network: nn.Module, seed: int = 0) -> RecurrentGates:
        """Put recurrent gates in place; ``remove`` on what is returned takes them out."""
        return RecurrentGates(
            network,
            self.width,
            linear=self.linear,
            strength=self.strength,
            cut=self.cut,
            seed=seed,
        )

    def attach(self, model: Model, seed: int = 0) -> RecurrentGates:
        """Put gates in place with the trained head's weights.

        The embedded head is for one mixture and one width; anywhere else the gates start at zero.

        Raises:
            Mismatch: a folder whose head was trained for another model.
            ModelError: one of another width, or damaged files.
        """
        head = self._head(model)
        gates = self.install(model.network, seed)
        try:
            if head.trained:
                gates.fill(head.tensors)
        except BaseException:
            gates.remove()
            raise
        return gates

    def check_head(self, model: Model) -> None:
        """Refuse a mixture without a trained head, unless untrained gates are asked for.

        Raises:
            Mismatch: no head fits the mixture and the knobs.
            ModelError: a folder without a head, or damaged files.
        """
        if self.heads == "untrained" or self._head(model).trained:
            return
        raise Mismatch(
            f"recurrent: the embedded head was trained for zoo:moe with width=32 and linear on; it"
            f" does not fit {model.name} with width={self.width} and linear"
            f" {'on' if self.linear else 'off'}. Train one (`workbench zoo train recurrent`) and"
            " name its folder in heads, or set heads=untrained, which starts from nothing learnt"
        )

    def _head(self, model: Model) -> Attachment:
        nothing = Attachment({}, {})
        if self.heads != "zoo":
            return load_attachment(self.heads, "recurrent", model)
        try:
            head = load_attachment("zoo", "recurrent", model)
        except Mismatch:
            return nothing
        knobs = {"width": self.width, "linear": self.linear}
        return head if head.card["knobs"] == knobs else nothing
