"""``WhatIf``: what a notebook calls."""

from __future__ import annotations

from widgets.labs.board_lab import BoardLab
from widgets.labs.what_if.controller import WhatIfLab
from workbench.core.trace import Trace


class WhatIf(BoardLab):
    """A recorded run under another rule, temperature or budget, recomputed from the trace.

    Args:
        trace: the run; without one the lab opens on a recorded one.

    Example:
        >>> WhatIf(trace)  # doctest: +SKIP
    """

    def __init__(self, trace: Trace | None = None):
        super().__init__(WhatIfLab(trace))
