"""The dashboard's server: a taken port is named; a closed session leaves nothing behind."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from widgets.app import main
from workbench.core.errors import BadInput


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port={port}"):
            main.serve(port=port)


def test_a_page_is_built_for_each_session_and_ends_with_it(monkeypatch):
    views = []
    original = main.DecodePanel
    monkeypatch.setattr(
        main, "DecodePanel", lambda *args: views.append(original(*args)) or views[-1]
    )
    before = threading.active_count()
    pages = [main.decode_page(), main.decode_page()]
    assert pages[0] is not pages[1] and views[0].controller is not views[1].controller
    for view in views:
        view.close()
    end = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threading.active_count() <= before
