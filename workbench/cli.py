"""The command line: ``workbench lab | app | generate | methods | bench | zoo | doctor``.

Exit codes: 0 fine, 2 the user's mistake (a message, no traceback), 1 ours (a bug, or a check that
failed), 130 interrupted. Each command is a module of :mod:`workbench.commands` with ``SUMMARY``,
``DESCRIPTION``, ``EXAMPLES``, ``add_arguments(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from workbench.core.errors import WorkbenchError

COMMANDS = ("lab", "app", "generate", "methods", "bench", "zoo", "doctor")
DESCRIPTION = "Watch, compare and check speculative decoding of language models."
EPILOG = """\
start here:
  workbench lab                          open the guided tour in JupyterLab
  workbench generate "def add(a, b):"    decode with the embedded models, here in the terminal
  workbench COMMAND --help               what a command does, with examples
"""


def _module(command: str):
    return importlib.import_module(f"workbench.commands.{command}")


def version() -> str:
    """Version of the installed distribution, or a word that says it is not installed."""
    try:
        return metadata.version("draft-workbench")
    except metadata.PackageNotFoundError:
        return "not installed"


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; only the options of ``command`` are built, because others import much."""
    layout = argparse.RawDescriptionHelpFormatter
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--debug", action="store_true", help="show the traceback of an unexpected error"
    )
    parser = argparse.ArgumentParser(
        "workbench", description=DESCRIPTION, epilog=EPILOG, formatter_class=layout
    )
    parser.add_argument("--version", action="version", version=f"draft-workbench {version()}")
    several = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = _module(name)
        one = several.add_parser(
            name,
            parents=[shared],
            help=module.SUMMARY,
            description=module.DESCRIPTION,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=layout,
        )
        if name == command:
            module.add_arguments(one)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises for what a user can cause."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    debug = "--debug" in words or os.environ.get("WORKBENCH_DEBUG") == "1"
    try:
        args = build_parser(command).parse_args(words)
        code = _module(args.command).run(args)
        sys.stdout.flush()
        return code
    except SystemExit as leave:  # argparse has said what is wrong, or printed its help
        return leave.code if isinstance(leave.code, int) else 2
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("workbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to flush
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(
            f"workbench: {type(error).__name__}: {error}\nThis is a bug of the workbench, not your"
            " mistake. Run the command again with --debug and report what it prints.",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
