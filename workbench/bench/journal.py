"""A folder that keeps measurements whatever happens: a manifest, and one durable line each.

*Idea*: a line is on the disk (flush, fsync) before the next measurement begins, so a process that
is killed loses at most what it was measuring. A last line that was cut off is taken away when the
folder is opened again; a lock of the operating system keeps a second writer out and goes away with
its process, however that ends.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import IO, Any

from workbench.core.errors import BadInput, WorkbenchError

SCHEMA = 1
MANIFEST, LINES, LOCK = "manifest.json", "measurements.jsonl", "lock"


class JournalFull(WorkbenchError, OSError):
    """The disk (or a quota) took no more; what was written before is whole."""


class Journal:
    """Measurements of one grid in one folder; only one process writes.

    Args:
        folder: made where it is missing.
        identity: what must be the same to go on (the grid's JSON).
        about: versions, machine and seeds of this session; kept beside those of earlier ones.

    Raises:
        BadInput: a folder that holds other measurements, is damaged, or is in use.
        JournalFull: no room even to begin.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], about: dict[str, Any]):
        self.folder = Path(folder).expanduser()
        self.torn_bytes = 0  # of a last line that was cut off, taken away on opening
        self._lines: io.FileIO | None = None
        self._lock: IO[bytes] | None = held(self.folder)
        try:
            self.manifest = self._agreed(json.loads(json.dumps(identity)), about)
            self.records = self._read()
            self._lines = open(self.folder / LINES, "ab", buffering=0)
            self._good = os.fstat(self._lines.fileno()).st_size
        except BaseException:
            self.close()
            raise

    # ---- writing ---------------------------------------------------------------------------------

    def append(self, record: dict[str, Any]) -> None:
        """Put one measurement on the disk for good.

        Raises:
            JournalFull: what was kept, and how to go on.
        """
        assert self._lines is not None, "the journal is closed"
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            left = memoryview(line)
            while left:  # a raw write may take less than it was given
                left = left[self._lines.write(left) :]
            os.fsync(self._lines.fileno())
        except OSError as error:
            self._lines.truncate(self._good)  # the part of the line that there was room for
            raise JournalFull(
                f"{self.folder / LINES} cannot be written ({error.strerror}). The"
                f" {len(self.records)} measurements before are kept there. Free some room and"
                " run the same command with the same folder: it goes on where it stopped"
            ) from None
        self._good += len(line)
        self.records.append(record)

    def write(self, name: str, data: bytes) -> Path:
        """A whole file beside the measurements, never half of one.

        Raises:
            JournalFull: no room for it.
        """
        path, partial = self.folder / name, self.folder / f"{name}.partial"
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise JournalFull(
                f"{path} cannot be written ({error.strerror}). The measurements in"
                f" {self.folder / LINES} are whole. Free some room and run the same command again"
            ) from None

    def close(self) -> None:
        """Let another process have the folder."""
        for file in (self._lines, self._lock):
            if file is not None:
                file.close()
        self._lines = self._lock = None

    # ---- opening ---------------------------------------------------------------------------------

    def _agreed(self, identity: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        """The manifest, with this session in it."""
        path = self.folder / MANIFEST
        if path.exists():
            manifest = read_manifest(self.folder)
            differs = difference(manifest["grid"], identity)
            if differs:
                raise BadInput(
                    f"folder={str(self.folder)!r} holds measurements of another grid ({differs})."
                    " Name another folder, or repeat the command that began this one"
                )
        elif (self.folder / LINES).exists():
            raise BadInput(
                f"folder={str(self.folder)!r}: {LINES} is there but {MANIFEST} is not, so nobody"
                " knows what was measured; name another folder"
            )
        else:
            manifest = {"schema": SCHEMA, "grid": identity, "sessions": []}
        manifest["sessions"].append(about)
        self.write(MANIFEST, json.dumps(manifest, indent=1).encode())
        return manifest

    def _read(self) -> list[dict[str, Any]]:
        """Every record; a last line that was cut off is removed from the file first."""
        path = self.folder / LINES
        if not path.exists():
            return []
        self.torn_bytes = cut_torn_line(path)
        return parsed(path.read_bytes(), path)


def cut_torn_line(path: Path) -> int:
    """Take a last line away that was not written to its end; how many bytes it had."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    return len(data) - whole


def parsed(data: bytes, path: Path) -> list[dict[str, Any]]:
    """Records of whole lines.

    Raises:
        BadInput: a damaged line, by file and number.
    """
    records = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            record = json.loads(line)
            record["cell"], record["prompt"], record["repeat"], record["state"]
        except (ValueError, LookupError, TypeError):
            raise BadInput(
                f"{path} line {number} is damaged. Delete that line (it will be measured again),"
                " or name another folder"
            ) from None
        records.append(record)
    return records


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
        BadInput: none there, or not one of this version.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        schema, _ = manifest["schema"], manifest["grid"]["cells"]
        manifest["sessions"].append  # noqa: B018 - a list, or this raises
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror}); is it a sweep's folder?"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BadInput(f"{path} is damaged; name another folder") from None
    if schema != SCHEMA:
        raise BadInput(f"{path}: schema {schema} is not {SCHEMA}, the one this version reads")
    return manifest


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """Everything measured so far, also while another process is measuring; changes nothing."""
    path = Path(folder) / LINES
    if not path.exists():
        return []
    data = path.read_bytes()
    return parsed(data[: data.rfind(b"\n") + 1], path)


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two grids, in words; empty where nothing does."""
    found = []
    cells, wanted = set(old.get("cells", ())), set(new.get("cells", ()))
    if cells != wanted:
        found.append(
            f"{len(cells - wanted)} cells only there, {len(wanted - cells)} only asked for"
        )
    for part in ("prompts", "setting"):
        before, after = old.get(part, {}), new.get(part, {})
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                found.append(
                    f"{part}.{key} {before.get(key)!r} there, {after.get(key)!r} asked for"
                )
    if old.get("repeats") != new.get("repeats"):
        found.append(f"repeats {old.get('repeats')} there, {new.get('repeats')} asked for")
    return "; ".join(found)


def held(folder: Path) -> IO[bytes]:
    """A folder, made where it is missing, that no other process writes while the file is open.

    Raises:
        BadInput: it cannot be written, or another process holds it.
    """
    where = f"folder={str(folder)!r}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "ab")
    except OSError as error:
        raise BadInput(f"{where} cannot be written ({error.strerror}); name another") from None
    try:
        import fcntl
    except ImportError:  # Windows: two writers on one folder are not kept apart
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BadInput(
            f"{where} is in use by another process that measures; wait for it, or name another"
        ) from None
    return file
