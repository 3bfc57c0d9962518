"""What the expert lab opens on: the embedded mixture's routing of a line of code.

Record it again with ``python -m widgets.labs.experts.recorded``.
"""

from __future__ import annotations

from functools import cache

import msgspec
import torch

from widgets.labs import recordings
from workbench.core.routing import LayerRouting, RoutingRecord

NAME = "experts.json"
MODEL = "zoo:moe"


class Layer(msgspec.Struct, frozen=True):
    """One layer's logits ``[t e]`` and its triples."""

    logits: list[list[float]]
    token: list[int]
    expert: list[int]
    weight: list[float]


class Recording(msgspec.Struct, frozen=True):
    """A text in pieces, its loss, and who went where."""

    said: str
    pieces: tuple[str, ...]
    loss_nats: float
    layers: dict[int, Layer]

    @property
    def record(self) -> RoutingRecord:
        """As it was recorded, to four digits."""
        found = {}
        for number, one in self.layers.items():
            triples = (torch.tensor(one.token), torch.tensor(one.expert), torch.tensor(one.weight))
            found[number] = LayerRouting(torch.tensor(one.logits), *triples)
        return RoutingRecord(found)


@cache
def recording() -> Recording | None:
    """The recorded routing; None where the package was installed without it."""
    return recordings.read(NAME, Recording)


def record() -> Recording:
    """Load the mixture in the lab's own controller and keep what it shows."""
    from widgets.labs.experts.controller import ExpertLab

    lab = ExpertLab(MODEL, "")
    lab.warm()
    if not lab.worker.wait(600) or lab.record is None:
        raise RuntimeError(f"the routing to record went wrong: {lab.contents()['error']}")
    layers = {
        number: Layer(*(getattr(one, part).tolist() for part in Layer.__struct_fields__))
        for number, one in lab.record.layers.items()
    }
    done = Recording(f"{MODEL} on a line of code", lab.pieces, lab.text_loss, layers)
    lab.close()
    return done


if __name__ == "__main__":
    recordings.write(NAME, record())
