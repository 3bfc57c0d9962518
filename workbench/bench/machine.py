"""What a measured time depends on: this machine, in words, and whether another is like it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from workbench.models.load import versions

_DECIDES = ("processor", "cores", "gpus")  # what makes a measured time another one


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model name, or its architecture where the system does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found and found[0] else platform.processor() or platform.machine()


def this_machine() -> dict[str, Any]:
    """Host, processor, cores and GPUs, with the versions that a time depends on."""
    cuda = range(torch.cuda.device_count())
    return {
        "host": platform.node(),
        "system": platform.system(),
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(index) for index in cuda],
        "versions": versions(),
    }


def words(machine: dict[str, Any]) -> str:
    """One line: ``node7 (AMD EPYC, 16 cores, H100)``."""
    parts = [str(machine.get("processor", "?")), f"{machine.get('cores', '?')} cores"]
    return f"{machine.get('host', '?')} ({', '.join([*parts, *machine.get('gpus', ())])})"


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether times of one may be expected on the other: same processor, cores and GPUs."""
    return all(one.get(key) == other.get(key) for key in _DECIDES)
