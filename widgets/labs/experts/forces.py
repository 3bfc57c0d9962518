"""What the expert lab puts in force on a mixture's routers, and takes off again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from workbench.core.steering import Intervention
from workbench.models.model import Model
from workbench.models.steering import Steering


def in_force(model: Model, rule: Any, interventions: Sequence[Intervention]) -> ExitStack:
    """A rule, or a router that brings gates of its own, and interventions on top of it.

    Closing what is returned gives every gate back as it was, to the last bit; so does a refusal.

    Raises:
        Mismatch: a router with gates of its own that no trained head fits.
        BadInput: interventions that cannot be done.
    """
    with ExitStack() as held:
        own = hasattr(rule, "attach")
        if own:
            rule.check_head(model)
            held.enter_context(rule.attach(model))
        held.enter_context(Steering(model.network, None if own else rule, interventions))
        return held.pop_all()
