"""The kernel compiled for this processor, once, and loaded through ctypes.

The compiler is the one that ``torch.compile`` would need too (``c++``, ``g++`` or ``clang++``).
Without one, or where the result does not load, everything runs on torch alone: slower, the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("kernel.cpp")
_HEADERS = ("registers.h", "threads.h", "product.h", "attention.h", "laws.h")
_COMPILERS = ("g++", "c++", "clang++")
# The first that compiles is taken: this very processor, or any of its kind.
_FLAGS = (("-march=native",), ("-mcpu=native",), ())
_ALWAYS = (
    "-O3",
    "-pthread",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_MACHINES = ("x86_64", "AMD64", "aarch64", "arm64")
SWITCH = "WORKBENCH_NATIVE"


class Matrix(ctypes.Structure):
    """One packed matrix, as ``kernel.cpp`` declares it."""

    _fields_ = [
        ("panels", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("narrow", ctypes.c_int64),
    ]


class Layer(ctypes.Structure):
    """One layer, as ``kernel.cpp`` declares it."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("norm_in", "norm_mlp", "norm_q", "norm_k")),
        *((name, Matrix) for name in ("qkv", "out", "gate_up", "down")),
        *((name, ctypes.c_double) for name in ("eps", "eps_heads", "scale")),
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "size", "inner", "width")),
    ]


class Store(ctypes.Structure):
    """Where one layer's keys and values lie, and their shape."""

    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("capacity", "heads", "size")),
    ]


class RowBlock(ctypes.Structure):
    """The rows of one pass, as ``kernel.cpp`` declares them."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "past")),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "depths", "mask")),
        *((name, ctypes.c_int64) for name in ("mask_from", "origin", "threads")),
    ]


class Ends(ctypes.Structure):
    """What one call does before its first and after its last layer."""

    _fields_ = [
        ("table", ctypes.c_void_p),
        ("ids", ctypes.c_void_p),
        ("vocabulary", ctypes.c_int64),
        ("norm", ctypes.c_void_p),
        ("eps", ctypes.c_double),
    ]


class Unavailable(Exception):
    """Why there is no compiled kernel here."""


def kernel() -> ctypes.CDLL:
    """The compiled kernel; made once in a process, and refused once where it cannot be made.

    Raises:
        Unavailable: switched off, no compiler, or a compiler that fails; says which.
    """
    found = attempt()
    if isinstance(found, Unavailable):
        raise found
    return found


def compiler() -> str | None:
    """The C++ compiler that is used, if there is one."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


@lru_cache(maxsize=1)
def attempt() -> ctypes.CDLL | Unavailable:
    """The kernel, or why there is none."""
    if os.environ.get(SWITCH, "1") == "0":
        return Unavailable(f"the compiled pass is switched off ({SWITCH}=0)")
    if platform.machine() not in _MACHINES:
        return Unavailable(f"no compiled pass for processors of kind {platform.machine()!r}")
    chosen = compiler()
    if chosen is None:
        return Unavailable(f"no C++ compiler found ({', '.join(_COMPILERS)}); install g++")
    try:
        return _declared(str(_compiled(chosen)))
    except Unavailable as problem:
        return problem
    except OSError as problem:  # a folder from which nothing may run, a library that is missing
        return Unavailable(f"the compiled kernel does not load: {problem}")


def _declared(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    # It looks at objects, so it keeps Python's lock.
    setattr(library, "wb_same", ctypes.PyDLL(path).wb_same)  # noqa: B010
    for name, arguments, gives in (
        ("wb_pack", (pointer, whole, whole, whole, pointer), None),
        ("wb_fits_narrow", (pointer, whole), whole),
        ("wb_digest", (pointer, whole), ctypes.c_uint64),
        ("wb_same", (*(pointer,) * 4, whole), whole),
        ("wb_layers", (*(pointer,) * 4, *(whole,) * 4, pointer), whole),
        ("wb_norm", (pointer, real, whole, whole, pointer, pointer), None),
        ("wb_move", (pointer, whole, whole, pointer, whole), None),
        ("wb_entropies", (pointer, whole, whole, pointer), None),
        ("wb_largest", (pointer, whole, whole, whole, pointer, pointer), None),
        ("wb_laws", (pointer, whole, whole, real, pointer, pointer, pointer), None),
        (
            "wb_chain",
            (pointer, whole, *(pointer,) * 4, real, pointer, whole, *(pointer,) * 4),
            whole,
        ),
        ("wb_multiply", (pointer, pointer, whole, whole, pointer), None),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, gives
    return library


def _compiled(compiler: str) -> Path:
    """The library for this source, compiler and processor; compiled where it is not there yet."""
    folder = _folder()
    path = folder / f"kernel-{_key(compiler)}.so"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(suffix=".so", dir=folder)
    except OSError as problem:
        raise Unavailable(f"{folder} cannot be written ({problem})") from None
    os.close(handle)
    said = ""
    for flags in _FLAGS:
        command = [compiler, *_ALWAYS, *flags, str(_SOURCE), "-o", scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.replace(scratch, path)  # at once: another process may be compiling the same
            return path
        said = said or done.stderr.strip()[:200]
    os.unlink(scratch)
    raise Unavailable(f"{compiler} cannot compile the kernel: {said}")


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "draft-workbench"


def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    sources = (_SOURCE, *map(_SOURCE.with_name, _HEADERS))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    digest.update(
        repr((_ALWAYS, _FLAGS, version.stdout, platform.machine(), _processor())).encode()
    )
    return digest.hexdigest()[:16]


def _processor() -> str:
    """What tells one processor's instructions from another's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return " ".join(sorted({line for line in lines if line.startswith(wanted)}))
