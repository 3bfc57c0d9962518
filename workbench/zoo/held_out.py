"""Held-out prompts: short cuts from files that the embedded models never saw in training.

*Idea*: a drafter that looks good on text the model has learnt by heart says nothing, so every
measurement and every lab starts from these. They are stored as text, so that all machines measure
the same thing whatever Python they run; ``index.json`` says where each one was cut.

Example:
    >>> [p.name for p in prompts("prose")][:1]
    ['prose_kolam']
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench.core.errors import BadInput, closest
from workbench.models.corpus import part_of, read_corpus

FOLDER = Path(__file__).resolve().parent / "prompts"
KINDS = {
    "code": "code completion",
    "docstring": "docstring",
    "repetitive": "repetitive code",
    "test": "test code",
    "prose": "prose",
}


@dataclass(frozen=True)
class HeldOutPrompt:
    """One prompt.

    Args:
        name: e.g. ``code_attrgetter``; begins with its kind.
        kind: a key of :data:`KINDS`.
        text: what the model continues; ends without a line break.
        source: the file it was cut from, relative to the standard library's folder.
    """

    name: str
    kind: str
    text: str
    source: str


def _index() -> list[dict]:
    return json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))


@cache
def _all() -> tuple[HeldOutPrompt, ...]:
    found = []
    for row in _index():
        text = (FOLDER / f"{row['name']}.txt").read_text(encoding="utf-8")
        found.append(HeldOutPrompt(row["name"], row["kind"], text, row["source"]))
    return tuple(found)


def prompts(kind: str | None = None) -> list[HeldOutPrompt]:
    """Every held-out prompt, or those of one kind, in a fixed order.

    Raises:
        BadInput: an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise BadInput(
            f"kind={kind!r} is not known.{closest(kind, KINDS)} Known: {', '.join(KINDS)}"
        )
    return [p for p in _all() if kind in (None, p.kind)]


def prompt(name: str) -> HeldOutPrompt:
    """One prompt by name.

    Raises:
        BadInput: an unknown name, with the closest one.
    """
    known = {p.name: p for p in _all()}
    if name not in known:
        raise BadInput(f"prompt={name!r} is not a held-out prompt.{closest(name, known)}")
    return known[name]


def cut(text: str, begin: str, end: str) -> str:
    """The part of ``text`` from the line that holds ``begin`` up to and including ``end``.

    Raises:
        ValueError: a mark that is not there.
    """
    at = text.index(begin)
    start = text.rfind("\n", 0, at) + 1
    return text[start : text.index(end, at) + len(end)]


def regenerate(folder: Path | None = None) -> list[HeldOutPrompt]:
    """Cut every prompt again from this Python's standard library and write the text files.

    Raises:
        ValueError: a source that is trained on, or that this Python words differently.
    """
    texts = {file.path: file.text for file in read_corpus()}
    written = []
    for row in _index():
        if part_of(row["source"]) == "train":
            raise ValueError(f"{row['name']}: {row['source']} is trained on; cut it elsewhere")
        if row["source"] not in texts:
            raise ValueError(f"{row['name']}: this Python has no {row['source']}")
        text = cut(texts[row["source"]], row["begin"], row["end"])
        ((folder or FOLDER) / f"{row['name']}.txt").write_text(text, encoding="utf-8")
        written.append(HeldOutPrompt(row["name"], row["kind"], text, row["source"]))
    return written


if __name__ == "__main__":
    print(f"{len(regenerate())} prompts written to {FOLDER}")
