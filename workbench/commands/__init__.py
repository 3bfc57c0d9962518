"""One module a command; each has SUMMARY, DESCRIPTION, EXAMPLES, add_arguments and run."""

from __future__ import annotations

import importlib.util

from workbench.core.errors import BadInput


def require(extra: str, *modules: str) -> None:
    """Refuse a command whose libraries are not installed.

    Raises:
        BadInput: naming the first missing library and what to install.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise BadInput(
                f"this command needs {module}, which is not installed;"
                f" install it with: pip install 'draft-workbench[{extra}]'"
            )
