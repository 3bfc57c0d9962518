"""A scripted engine for the labs; what it does is in ``lab_script``."""

from __future__ import annotations

import pytest
from lab_script import Script, make_trace

from workbench.core.trace import Trace


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def trace() -> Trace:
    return make_trace(3)
