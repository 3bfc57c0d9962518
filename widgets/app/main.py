"""Serve the dashboard. Every browser tab has its own lab; the models are shared."""

from __future__ import annotations

import socket
from typing import Any

import panel as pn

from widgets.app.host_mode import HostMode
from widgets.app.page import board_page, page
from widgets.labs.board import Board
from widgets.labs.board_panel import BoardPanel
from widgets.labs.decode.controller import DecodeController
from widgets.labs.decode.panel import DecodePanel
from widgets.labs.decode.recorded import recorded_trace
from workbench.core.errors import BadInput


def decode_page(**settings: Any) -> pn.Template:
    """A fresh decode lab for the session that is being opened; it ends with the session."""
    document = pn.state.curdoc
    controller = DecodeController(trace=recorded_trace(), **settings)
    view = DecodePanel(controller, document.add_next_tick_callback if document else None)
    mode = HostMode()
    mode.param.watch(lambda event: view.darken(bool(event.new)), "dark")
    made = page({**view.roots(), "mode": mode})
    pn.state.onload(controller.warm)
    pn.state.on_session_destroyed(lambda context, view=view: view.close())
    return made


def verifier_page() -> pn.Template:
    """A fresh verifier lab for the session that is being opened; it ends with the session."""
    from widgets.labs.verifier.controller import VerifierLab

    return _board(VerifierLab(), "/verifier")


def what_if_page() -> pn.Template:
    """A fresh what-if lab for the session that is being opened."""
    from widgets.labs.what_if.controller import WhatIfLab

    return _board(WhatIfLab(), "/what-if")


def adapters_page() -> pn.Template:
    """A fresh adapter lab; ``?model=FOLDER&draft=FOLDER`` opens it on a model of your own."""
    from widgets.labs.adapters.controller import AdapterLab

    lab = AdapterLab(_asked("model", "zoo:target"), _asked("draft", "zoo:draft"))
    pn.state.onload(lab.warm)
    return _board(lab, "/adapters")


def pruning_page() -> pn.Template:
    """A fresh pruning lab; ``?model=FOLDER&draft=`` opens it on a model of your own."""
    from widgets.labs.pruning.controller import PruningLab

    lab = PruningLab(_asked("model", "zoo:target"), _asked("draft", "zoo:draft"))
    pn.state.onload(lab.warm)
    return _board(lab, "/pruning")


def experts_page() -> pn.Template:
    """A fresh expert lab; ``?model=FOLDER&draft=`` opens it on a mixture of your own."""
    from widgets.labs.experts.controller import ExpertLab

    lab = ExpertLab(_asked("model", "zoo:moe"), _asked("draft", "zoo:draft"))
    pn.state.onload(lab.warm)
    return _board(lab, "/experts")


def arena_page() -> pn.Template:
    """A fresh arena; ``?folder=DIR&targets=M&draft=M`` fills its form."""
    from widgets.labs.arena.controller import ArenaLab

    models = {"targets": _asked("targets", "zoo:target"), "draft": _asked("draft", "zoo:draft")}
    lab = ArenaLab(folder=_asked("folder", ""), **models)
    return _board(lab, "/arena")


def _asked(name: str, default: str) -> str:
    """A value of the page's address."""
    given = (pn.state.session_args or {}).get(name)
    return given[0].decode() if given else default


def _board(board: Board, here: str) -> pn.Template:
    document = pn.state.curdoc
    view = BoardPanel(board, document.add_next_tick_callback if document else None)
    mode = HostMode()
    mode.param.watch(lambda event: view.darken(bool(event.new)), "dark")
    mode.param.watch(lambda event: view.widen(event.new), "widths_px")
    pn.state.on_session_destroyed(lambda context, view=view: view.close())
    return board_page({**view.roots(), "mode": mode}, board, here)


def serve(port: int = 5006, address: str = "127.0.0.1", show: bool = False) -> None:
    """Serve until interrupted.

    Args:
        port: to listen on.
        address: of this machine that may be reached; keep 127.0.0.1 unless you mean to share.
        show: open the browser.

    Raises:
        BadInput: the port is taken.
    """
    _check_port(address, port)
    pn.extension("plotly")
    pn.serve(
        {
            "/": decode_page,
            "verifier": verifier_page,
            "what-if": what_if_page,
            "adapters": adapters_page,
            "pruning": pruning_page,
            "experts": experts_page,
            "arena": arena_page,
        },
        port=port,
        address=address,
        show=show,
        title="Draft Workbench",
        websocket_origin=[f"{host}:{port}" for host in {address, "127.0.0.1", "localhost"}],
    )


def _check_port(address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise BadInput(
                f"port={port}: cannot be used on {address} ({error.strerror}); choose another"
            ) from None
