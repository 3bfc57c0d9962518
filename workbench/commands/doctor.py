"""``workbench doctor``: is this machine ready."""

from __future__ import annotations

import argparse
import json

SUMMARY = "check this machine: versions, devices, browser, embedded models"
DESCRIPTION = """\
Say what this machine has and whether it is enough. Exit code 0: ready; 1: something is broken, and
the line that begins with ! says what to do. Put its output into every bug report."""
EXAMPLES = ("workbench doctor", "workbench doctor --json")
_MARKS = {"fine": " ", "note": "-", "warning": "?", "failure": "!"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from workbench.doctor import examine

    checks = []
    for check in examine():
        checks.append(check)
        if not args.json:
            fix = f"  -> {check.fix}" if check.fix else ""
            print(f"{_MARKS[check.state]} {check.name:<15}{check.found}{fix}", flush=True)
    ready = all(check.state != "failure" for check in checks)
    if args.json:
        print(json.dumps({"ready": ready, "checks": [c.to_json() for c in checks]}, indent=2))
    else:
        print("ready" if ready else "not ready: see the lines that begin with !")
    return 0 if ready else 1
