"""``%%speculate``: open the decode lab on the text of a cell."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from workbench.core.errors import BadInput, WorkbenchError, closest


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of ending the kernel."""

    def error(self, message: str) -> Any:
        raise BadInput(f"%%speculate: {message}. {self.format_usage().strip()}")

    def exit(self, status: int = 0, message: str | None = None) -> Any:
        raise _Help


class _Help(Exception):
    """``--help`` was asked for and printed."""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="%%speculate", description="Open the decode lab on this cell's text.")
    parser.add_argument("--model", default="zoo:target", help="zoo:..., a folder or a hub id")
    parser.add_argument("--draft", default=None, help="draft model, likewise")
    for family in ("drafter", "verifier", "policy"):
        parser.add_argument(f"--{family}", default=None, help=f"a {family} by name")
    parser.add_argument("--temperature", type=float, default=None, help="0 = greedy")
    parser.add_argument("--max-new-tokens", type=int, default=None)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="a knob, e.g. drafter.k=8",
    )
    return parser


def read_line(line: str) -> dict[str, Any]:
    """Arguments of the magic as keyword arguments of ``DecodeLab``.

    Raises:
        BadInput: an unknown argument or a knob without a value.
    """
    from widgets.labs.decode.settings import all_fields, first_settings, long_key

    found = vars(_parser().parse_args(shlex.split(line)))
    pairs = found.pop("set")
    given = {name: value for name, value in found.items() if value is not None}
    picked = {k: v for k, v in given.items() if k in ("drafter", "verifier", "policy")}
    settings, form = first_settings(picked), all_fields()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        key = long_key(name, settings)
        if not equals or key not in form:
            hint = "write KNOB=VALUE" if not equals else f"no such knob.{closest(key, form)}"
            raise BadInput(f"--set {pair!r}: {hint}")
        given[key] = form[key].knob.parse(text, form[key].owner)
    return given


def speculate(line: str, cell: str) -> Any:
    """Open the decode lab on ``cell``; the settings come from ``line``."""
    from widgets import DecodeLab

    try:
        given = read_line(line)
        return DecodeLab(prompt=cell.rstrip("\n"), **given)
    except _Help:
        return None
    except WorkbenchError as error:  # the user's mistake: one line, not a traceback
        print(f"{type(error).__name__}: {error}")
        return None


def register(ipython: Any) -> None:
    """Make ``%%speculate`` known to a kernel."""
    ipython.register_magic_function(speculate, magic_kind="cell", magic_name="speculate")
