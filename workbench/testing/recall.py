"""Passes of a tiny network are computed once, however often a draft is asked for.

*Idea*: a check of a law asks for thousands of drafts from one place, and they meet the same few
passes. A pass is a function of the weights, of the stored keys and values and of its rows; so what
it gave, keys and values with it, is given again for the same three, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from workbench.models.session import Session


def _content(tensor: torch.Tensor | None) -> bytes:
    if tensor is None or not tensor.numel():
        return b""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()  # whatever its type


class Recall:
    """What passes gave. ``passes`` counts those that were computed, ``asked`` all of them."""

    def __init__(self) -> None:
        self.known: dict = {}
        self.passes = self.asked = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside, every session on a CPU answers from here what it has computed before."""
        run = Session._run

        def recalled(session: Session, *asked):
            return self._answer(run, session, *asked)

        with mock.patch.object(Session, "_run", recalled):
            yield

    def _answer(self, run, session: Session, rows, span, capture, last_only):
        if session.device.type != "cpu":
            return run(session, rows, span, capture, last_only)
        layers, network = session._cache.layers, session.model.network
        key = (
            id(network),
            tuple(w._version for w in network.parameters() if not w.is_inference()),
            tuple((_content(layer.keys), _content(layer.values)) for layer in layers),
            (_content(rows.ids), rows.past, rows.origin, _content(rows.depth)),
            (_content(rows.block), _content(rows.bias), span, capture, last_only),
        )
        self.asked += 1
        if key not in self.known:
            self.passes += 1
            before = [layer.length for layer in layers]
            given = run(session, rows, span, capture, last_only)
            written = [
                (layer.keys[:, :, past:].clone(), layer.values[:, :, past:].clone())
                if layer.length > past
                else None
                for layer, past in zip(layers, before, strict=True)
            ]
            self.known[key] = network, given, written  # held, so that no other has its id
            return given
        _, given, written = self.known[key]
        for layer, states in zip(layers, written, strict=True):
            if states is not None:
                layer.update(*states)
        return given
