"""Models whose passes are recorded by calling them again, and models that are only walked."""

from __future__ import annotations

import copy

from workbench.models.graphs import GraphWalk
from workbench.models.recording import CalledAgain


class Counted:
    """A recorder that counts what it takes down and how often that is replayed."""

    def __init__(self, recorder=CalledAgain):
        self.recorder, self.made, self.replays = recorder, 0, 0

    def __call__(self, work):
        self.made += 1
        inner, outer = self.recorder(work), self

        class Recording:
            def replay(self):
                outer.replays += 1
                return inner.replay()

        return Recording()


def recorded(model, recorder=None):
    """The same weights through recordings, and what counts them."""
    other, counted = copy.copy(model), recorder or Counted()
    other.__dict__.update(native=None, graphs=GraphWalk(model.anatomy, counted))
    other.graphs.refused = ""
    return other, counted


def walked(model):
    """The same weights through torch's walk."""
    other = copy.copy(model)
    other.__dict__.update(native=None, graphs=None)
    return other
