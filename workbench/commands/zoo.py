"""``workbench zoo``: the embedded models and the prompts to try them on."""

from __future__ import annotations

import argparse

SUMMARY = "the embedded models: what they are, train or enlarge them, prompts to try"
DESCRIPTION = """\
The models that come with the workbench, small enough to run anywhere. They were trained on the
source of Python's standard library, so they continue Python code, not conversation."""
EXAMPLES = (
    "workbench zoo info",
    "workbench zoo prompts",
    "workbench zoo prompts code_attrgetter | workbench generate -",
    "workbench zoo train draft --help",
    "workbench zoo inflate --size 109M --out big --check",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from workbench.zoo import command

    command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from workbench.zoo import command

    return command.run(args)
