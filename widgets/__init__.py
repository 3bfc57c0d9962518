"""What people see: figures, views and labs over the engine.

Example:
    >>> import widgets
    >>> widgets.DecodeLab("zoo:target")            # the live lab, in JupyterLab  # doctest: +SKIP
    >>> widgets.VerifierLab()                      # every rule on one p and q  # doctest: +SKIP
    >>> widgets.WhatIf()                           # a recorded run, changed  # doctest: +SKIP
    >>> widgets.AdapterLab()                       # adapters, trained and weighed  # doctest: +SKIP
    >>> widgets.PruningLab()                       # masks, painted or computed  # doctest: +SKIP
    >>> widgets.ExpertLab("zoo:moe")               # who goes to which expert    # doctest: +SKIP
    >>> widgets.Arena()                            # methods compared, tuned      # doctest: +SKIP
    >>> widgets.show("run.json")                   # a saved trace, no model      # doctest: +SKIP

In a notebook, ``%load_ext widgets`` adds the ``%%speculate`` cell magic.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "AdapterLab": "widgets.labs.adapters.lab",
    "Arena": "widgets.labs.arena.lab",
    "DecodeLab": "widgets.labs.decode.lab",
    "ExpertLab": "widgets.labs.experts.lab",
    "PruningLab": "widgets.labs.pruning.lab",
    "VerifierLab": "widgets.labs.verifier.lab",
    "WhatIf": "widgets.labs.what_if.lab",
    "show": "widgets.labs.decode.lab",
}
__all__ = [
    "AdapterLab",
    "Arena",
    "DecodeLab",
    "ExpertLab",
    "PruningLab",
    "VerifierLab",
    "WhatIf",
    "show",
]


def __getattr__(name: str) -> Any:
    """Labs are imported when first used, so that ``import widgets`` stays light."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'widgets' has no attribute {name!r}")


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext widgets``: register the cell magics."""
    from widgets.magics import register

    register(ipython)
