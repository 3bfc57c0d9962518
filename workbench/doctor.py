"""What this machine has, and whether that is enough: the checks behind ``workbench doctor``."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
UI_PACKAGES = ("jupyterlab", "ipywidgets", "anywidget", "plotly", "panel", "bokeh")
BF16_FLAGS = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16", "bf16": "ARM BF16"}


@dataclass(frozen=True)
class Check:
    """One finding. ``note`` is no fault, ``warning`` limits something, ``failure`` breaks it."""

    name: str
    state: Literal["fine", "note", "warning", "failure"]
    found: str
    fix: str = ""

    def to_json(self) -> dict:
        return asdict(self)


def installed(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_python() -> Iterator[Check]:
    yield Check("python", "fine", f"{platform.python_version()} {sys.executable}")


def check_packages() -> Iterator[Check]:
    for package in ("torch", "transformers", "safetensors", "tokenizers", "numpy", "msgspec"):
        version = installed(package)
        if version is None:
            yield Check(package, "failure", "missing", "run make setup")
        else:
            yield Check(package, "fine", version)
    absent = [p for p in UI_PACKAGES if installed(p) is None]
    if absent:
        fix = "pip install 'draft-workbench[lab,app]'"
        yield Check("user interface", "note", f"without {', '.join(absent)}", fix)
    else:
        found = ", ".join(f"{p} {installed(p)}" for p in UI_PACKAGES)
        yield Check("user interface", "fine", found)


def check_lock(lock: Path = ROOT / "constraints.txt") -> Iterator[Check]:
    """Whether what is installed is what the lock says."""
    if not lock.is_file():
        yield Check("lock", "note", "no constraints.txt here (not a checkout)")
        return
    wrong = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        name, _, wanted = line.partition("==")
        have = installed(name)
        if have is not None and have.partition("+")[0] != wanted:
            wrong.append(f"{name} {have}, not {wanted}")
    if wrong:
        found = f"{len(wrong)} differ: {'; '.join(wrong[:3])}"
        yield Check("lock", "warning", found, "make clean setup")
    else:
        yield Check("lock", "fine", "everything installed is as constraints.txt says")


def check_devices() -> Iterator[Check]:
    """Accelerators, cores and whether the processor multiplies bfloat16 itself."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Check("cuda", "fine", ", ".join(names))
    else:
        yield Check("cuda", "note", "none; models run on the CPU")
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Check("cores", "fine", f"{usable} usable of {cores}, {torch.get_num_threads()} threads")
    yield Check("instructions", "fine", torch.backends.cpu.get_cpu_capability())
    kinds = bf16_instructions()
    if kinds:
        yield Check("bf16", "fine", ", ".join(kinds))
    else:
        yield Check("bf16", "note", "no instructions for it found; float32 is usually faster here")
    yield check_kernel()


def check_kernel() -> Check:
    """Whether passes on the CPU can run compiled."""
    from workbench.models.native.build import Unavailable, kernel

    try:
        return Check("compiled pass", "fine", str(kernel()._name))
    except Unavailable as problem:
        fix = "install a C++ compiler, e.g. apt install g++; without one decoding is slower"
        return Check("compiled pass", "note", str(problem), fix)


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Names of the processor's bfloat16 instruction sets; empty where none or not known."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    flags = set(re.findall(r"\w+", " ".join(re.findall(r"(?m)^(?:flags|Features)\s*:(.*)$", text))))
    return [title for flag, title in BF16_FLAGS.items() if flag in flags]


def check_browser() -> Iterator[Check]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path:
        yield Check("chromium", "fine", path)
        return
    strict = os.environ.get("WORKBENCH_REQUIRE_BROWSER") == "1"
    found = "none found; the browser tests are skipped"
    fix = "install chromium from your system's packages"
    yield Check("chromium", "failure" if strict else "note", found, fix)


def check_zoo() -> Iterator[Check]:
    """Load every embedded model and run one token through it."""
    import torch

    from workbench.core.errors import WorkbenchError
    from workbench.models.load import load

    for name in ("zoo:target", "zoo:draft"):
        try:
            model = load(name, device="cpu")
            logits = model.session().forward(model.encode("def")).logits
        except WorkbenchError as error:
            yield Check(name, "failure", str(error), "restore workbench/zoo/weights")
            continue
        if bool(torch.isfinite(logits).all()):
            found = f"{model.parameters / 1e6:.1f} M parameters, {model.dtype}, {model.mode} pass"
            yield Check(name, "fine", found)
        else:
            yield Check(name, "failure", "its logits are not finite", "restore its weights")


def examine() -> Iterator[Check]:
    """Every check, one after the other; stops where what is missing makes the rest impossible."""
    broken = False
    for checks in (check_python, check_packages, check_lock, check_browser):
        for check in checks():
            broken |= check.state == "failure" and checks is check_packages
            yield check
    if not broken:
        yield from check_devices()
        yield from check_zoo()
