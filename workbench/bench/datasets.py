"""Prompt sets: what a measurement runs on, named, in a fixed order, with every broken line counted.

*Idea*: a set says where each prompt came from and what was left out, so that a table of speeds
can be read against the text it was measured on. Nothing is fetched: files and folders only.

Example:
    >>> open_prompts("zoo:code").prompts[0].kind
    'code'
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import BadInput, closest
from workbench.zoo.held_out import KINDS
from workbench.zoo.held_out import prompts as held_out

TURNS = ("first", "all")  # of a conversation: its first question, or all questions on end
FIELDS = ("prompt", "text", "question", "instruction", "content")  # tried where none is named
SHOWN_LINES = 3  # broken lines that an error or a summary names


@dataclass(frozen=True)
class BenchPrompt:
    """One text to continue; ``kind`` groups prompts in tables (code, writing, qa, ...)."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class PromptSet:
    """Prompts in a fixed order.

    Args:
        source: as it was asked for, e.g. ``zoo:code`` or a path.
        turns: what became of conversations: ``first`` or ``all``.
        skipped: one sentence for each line that was left out because it is broken.
    """

    source: str
    prompts: tuple[BenchPrompt, ...]
    turns: str = "first"
    skipped: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """16 hex digits over names, kinds and texts: two sets with the same one are the same."""
        rows = [[p.name, p.kind, p.text] for p in self.prompts]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def first(self, count: int | None) -> PromptSet:
        """The first ``count`` prompts of each kind (None = all), so that no kind falls out."""
        if count is None:
            return self
        if count < 1:
            raise BadInput(f"prompts per kind={count}: must be 1 or more")
        taken: dict[str, int] = {}
        kept = []
        for prompt in self.prompts:
            taken[prompt.kind] = taken.get(prompt.kind, 0) + 1
            if taken[prompt.kind] <= count:
                kept.append(prompt)
        return dataclasses.replace(self, prompts=tuple(kept))

    def describe(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        return {
            "source": self.source,
            "turns": self.turns,
            "count": len(self.prompts),
            "kinds": sorted({p.kind for p in self.prompts}),
            "fingerprint": self.fingerprint,
            "skipped": len(self.skipped),
        }


def open_prompts(
    source: str,
    *,
    field: str | None = None,
    kind_field: str = "category",
    turns: str = "first",
    skip_broken: bool = False,
) -> PromptSet:
    """The prompt set that a word on the command line names.

    Args:
        source: ``zoo`` or ``zoo:KIND``; a ``.jsonl`` file (Spec-Bench's questions, or any with a
            text field); a folder that the ``datasets`` library saved.
        field: of a JSONL row or a data set: which one holds the text; found where it is usual.
        kind_field: which one groups the prompts in tables; rows without it are of one kind.
        turns: of rows with several turns: ``first`` takes the first, ``all`` joins them with a
            blank line (without the answers in between, which no file holds).
        skip_broken: leave broken rows out, and count them, instead of failing.

    Raises:
        BadInput: a source that is not there, a broken row (naming file and line), or no prompt.
    """
    if turns not in TURNS:
        raise BadInput(f"turns={turns!r}: one of {', '.join(TURNS)}")
    if source == "zoo" or source.startswith("zoo:"):
        kind = source.partition(":")[2]
        if kind and kind not in KINDS:
            known = [f"zoo:{k}" for k in KINDS]
            raise BadInput(
                f"prompts={source!r} is not known.{closest(source, known)} Known: zoo (all),"
                f" {', '.join(known)}"
            )
        found = tuple(BenchPrompt(p.name, p.kind, p.text) for p in held_out(kind or None))
        return PromptSet(source, found, turns)
    path = Path(source).expanduser()
    read = _Rows(str(path), field, kind_field, turns)
    if path.is_dir():
        rows: Iterator[tuple[str, Callable[[], Any]]] = _saved_dataset(path)
    elif path.is_file():
        rows = _json_lines(path)
    else:
        raise BadInput(
            f"prompts={source!r}: no such file or folder; give zoo, zoo:KIND, a .jsonl file or a"
            " folder that datasets' save_to_disk wrote"
        )
    return read.all(source, rows, skip_broken)


class _Broken(ValueError):
    """A row that gives no prompt; the message says why."""


@dataclass(frozen=True)
class _Rows:
    """How a row becomes a prompt."""

    path: str
    field: str | None
    kind_field: str
    turns: str

    def all(self, source: str, rows, skip_broken: bool) -> PromptSet:
        found: list[BenchPrompt] = []
        names: set[str] = set()
        broken: list[str] = []
        for place, parse in rows:
            try:
                prompt = self.prompt(parse(), len(found) + len(broken))
                if prompt.name in names:
                    raise _Broken(f"question_id {prompt.name!r} is there twice")
                names.add(prompt.name)
                found.append(prompt)
            except _Broken as error:
                broken.append(f"{place}: {error}")
        if broken and not skip_broken:
            more = f" and {len(broken) - SHOWN_LINES} more" if len(broken) > SHOWN_LINES else ""
            raise BadInput(
                f"{'; '.join(broken[:SHOWN_LINES])}{more}. Correct the file, or leave such lines"
                " out with --skip-broken (skip_broken=True); they are counted in the result"
            )
        if not found:
            raise BadInput(f"prompts={source!r}: holds no prompt ({len(broken)} broken lines)")
        return PromptSet(source, tuple(found), self.turns, tuple(broken))

    def prompt(self, row: Any, index: int) -> BenchPrompt:
        if not isinstance(row, dict):
            raise _Broken(f"expected an object with a text, got {type(row).__name__}")
        text = self._turns(row["turns"]) if self._conversation(row) else self._text(row)
        if not text.strip():
            raise _Broken("its text is empty")
        name = str(row.get("question_id", row.get("id", index)))
        return BenchPrompt(name, str(row.get(self.kind_field) or "all"), text)

    def _conversation(self, row: dict) -> bool:
        return self.field == "turns" or (self.field is None and "turns" in row)

    def _turns(self, said: Any) -> str:
        if not isinstance(said, list) or not said or not all(isinstance(t, str) for t in said):
            raise _Broken("turns: expected a list of one or more texts")
        return said[0] if self.turns == "first" else "\n\n".join(said)

    def _text(self, row: dict) -> str:
        wanted = [self.field] if self.field else [f for f in FIELDS if f in row]
        if not wanted or wanted[0] not in row:
            missing = repr(self.field) if self.field else "turns, " + ", ".join(FIELDS)
            raise _Broken(
                f"no field {missing}; it has {', '.join(map(str, row)) or 'none'} (name one with"
                " --field)"
            )
        text = row[wanted[0]]
        if not isinstance(text, str):
            raise _Broken(f"{wanted[0]}: expected text, got {type(text).__name__}")
        return text


def _json_lines(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Place and parser of every line that is not blank."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"prompts={str(path)!r}: cannot be read ({error.strerror})") from None

    def parser(line: bytes) -> Callable[[], Any]:
        def parse() -> Any:
            try:
                return json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _Broken(f"not JSON ({error})") from None

        return parse

    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path} line {number}", parser(line)


def _saved_dataset(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Rows of a folder that ``save_to_disk`` wrote; nothing is looked up elsewhere."""
    where = f"prompts={str(path)!r}"
    try:  # not a dependency: few have such folders, and whoever does has the library
        library = importlib.import_module("datasets")
    except ImportError:
        raise BadInput(
            f"{where}: reading a saved data set needs the library that saved it: pip install"
            " datasets; or export it with to_json(FILE.jsonl) and give that file"
        ) from None
    try:
        table = library.load_from_disk(str(path))
    except Exception as error:  # whatever a folder of somebody else's making brings about
        raise BadInput(
            f"{where}: not a data set that save_to_disk wrote ({type(error).__name__}: {error})"
        ) from None
    if isinstance(table, dict):
        splits = ", ".join(map(str, table))
        raise BadInput(f"{where}: holds several splits ({splits}); give the folder of one of them")
    for number in range(len(table)):
        yield f"{path} row {number}", lambda number=number: table[number]
