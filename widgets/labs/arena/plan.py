"""From settings to what is measured: prompts, a grid, a search, a place; no model is touched."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from widgets.labs.arena import form
from workbench.bench.arena_command import parse_axes
from workbench.bench.cost_curve import CONTEXTS, ROWS
from workbench.bench.cost_model import DRAFTS
from workbench.bench.datasets import PromptSet, open_prompts
from workbench.bench.elsewhere import Place
from workbench.bench.grid import Cell, Grid, Setting
from workbench.bench.roofline import KNOWN, Hardware, Size
from workbench.bench.search import Search
from workbench.core.errors import BadInput
from workbench.core.sampling import Sampling

BASE = "arena"  # folder of the folders that are not named
GIGA = 1e9
FEWEST = 2 + max(depth for _, depth in DRAFTS)  # tokens; cost_report says why


def words(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def samplings(text: str) -> tuple[Sampling, ...]:
    """One for each temperature.

    Raises:
        BadInput: no number.
    """
    found = []
    for word in words(text):
        try:
            found.append(Sampling(float(word)))
        except ValueError as error:
            told = error if isinstance(error, BadInput) else "write numbers between commas: 0, 0.8"
            raise BadInput(f"temperature={word!r}: {told}") from None
    if not found:
        raise BadInput("temperature is empty; write 0, or several between commas: 0, 0.8")
    return tuple(found)


def prompts(settings: Mapping[str, Any]) -> PromptSet:
    """The prompt set that is chosen."""
    source = settings["prompts"]
    if source == form.FILE:
        source = settings["path"].strip()
        if not source:
            raise BadInput("path is empty; write where the .jsonl file is")
    found = open_prompts(source, turns=settings["turns"], skip_broken=settings["skip_broken"])
    return found.first(settings["per_kind"])


def grid(settings: Mapping[str, Any], extra: tuple[Cell, ...] = ()) -> Grid:
    """What the arena's form describes.

    Args:
        extra: cells of opened presets.
    """
    plural = {"drafter": "drafters", "verifier": "verifiers", "policy": "policies"}
    names = {family: list(settings[plural[family]]) for family in plural}
    names["schedule"] = ["sequential"]
    return Grid(
        prompts(settings),
        targets=words(settings["targets"]),
        drafts=words(settings["draft"]),
        draft_devices=draft_devices(settings),
        drafters=settings["drafters"],
        verifiers=settings["verifiers"],
        policies=settings["policies"],
        samplings=samplings(settings["temperatures"]),
        knobs=parse_axes([p.strip() for p in settings["knobs"].split(";") if p.strip()], names),
        extra=extra,
        repeats=settings["repeats"],
        setting=Setting(settings["new_tokens"], carry=settings["carry"]),
    )


def search(settings: Mapping[str, Any]) -> Search:
    """What the tuner's form describes; the first target, draft and temperature."""
    return Search(
        prompts(settings),
        target=first(settings, "targets"),
        draft=(*words(settings["draft"]), "")[0],
        drafters=settings["drafters"],
        policies=settings["policies"],
        sampling=samplings(settings["temperatures"])[0],
        setting=Setting(settings["new_tokens"]),
        trials=settings["trials"],
        finalists=settings["finalists"],
        draft_device=draft_devices(settings)[0],
    )


def draft_devices(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Where drafts stand, as cells say it: nothing = with the target."""
    return tuple("" if place == form.WITH else place for place in settings["draft_on"])


def first(settings: Mapping[str, Any], name: str) -> str:
    """The first of the words of a line.

    Raises:
        BadInput: none there.
    """
    found = words(settings[name])
    if not found:
        raise BadInput(f"{name} is empty; name a checkpoint, e.g. zoo:target")
    return found[0]


def folder(named: str, what: Grid | Search) -> Path:
    """The folder that was named, or one that belongs to exactly this grid or search."""
    if named.strip():
        return Path(named.strip()).expanduser()
    text = json.dumps(what.to_json(), sort_keys=True)
    kind = "tune" if isinstance(what, Search) else "grid"
    return Path(BASE) / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def tune_command(search: Search, folder: Path) -> str:
    """What to type to search the same in a terminal, e.g. on another machine."""
    words = ["workbench", "bench", "tune", "--folder", f"{folder}-anew"]
    words += ["--target", search.target, "--drafter", *search.drafters]
    words += ["--policy", *search.policies, "--prompts", search.prompts.source]
    words += ["--draft", search.draft] if search.draft else []
    words += ["--draft-device", search.draft_device] if search.draft_device else []
    words += ["--temperature", f"{search.sampling.temperature:g}", "--trials", str(search.trials)]
    return shlex.join([*words, "--new-tokens", str(search.setting.new_tokens)])


def said(grid: Grid) -> str:
    """How much that is."""
    cells, refused = grid.expanded()
    prompts, repeats = len(grid.prompts.prompts), grid.repeats
    total = len(cells) * prompts * repeats
    left = f"; {len(refused)} cannot run" if refused else ""
    skipped = f"; {len(grid.prompts.skipped)} broken lines left out" if grid.prompts.skipped else ""
    times = f"{len(cells)} configurations × {prompts} prompts × {repeats} repeats"
    return f"{times} = {total} measurements{left}{skipped}"


def told(show: str, settings: Mapping[str, Any], extra: tuple[Cell, ...] = ()) -> str:
    """What Start would do, in words.

    Raises:
        WorkbenchError: what is wrong with the settings.
    """
    if show == "arena":
        return said(grid(settings, extra))
    if show == "tune":
        found = search(settings)
        again = f"then the best {found.finalists} once more; the fastest becomes a preset"
        return f"{found.trials} trials of {len(found.prompts.prompts)} prompts each, {again}"
    if show == "cost":
        if settings["new_tokens"] < FEWEST:
            raise BadInput(
                f"new tokens={settings['new_tokens']}: the deepest draft of a cost run needs"
                f" {FEWEST} or more"
            )
        count, repeats = len(prompts(settings).prompts), settings["cost_repeats"]
        passes = f"passes of {ROWS[0]} to {ROWS[-1]} rows after {' and '.join(map(str, CONTEXTS))}"
        drafts = f"drafts of {len(DRAFTS)} sizes on {count} prompts × {repeats} repeats"
        return f"{passes} tokens, then {drafts}"
    return ""


def hardware(settings: Mapping[str, Any]) -> Hardware:
    """Where the target runs."""
    if settings["hardware"] == form.OWN:
        numbers = (settings[name] for name in ("bandwidth_gb_s", "tflops", "link_gb_s"))
        return Hardware("numbers of my own", *numbers)
    return next(one for one in KNOWN if one.name == settings["hardware"])


def place(settings: Mapping[str, Any], where: Hardware | None = None) -> Place:
    """Models on hardware; ``where`` stands in for the target's."""
    each = settings["bits"] / 8
    draft = settings["draft_b"] * GIGA
    apart = settings["placement"] == form.APART and draft > 0
    return Place(
        _size("target", settings["target_b"] * GIGA, each),
        _size("draft", draft, each) if draft > 0 else None,
        where or hardware(settings),
        next(h for h in KNOWN if h.name == settings["draft_hardware"]) if apart else None,
        settings["vocabulary"],
        settings["context"],
    )


def _size(name: str, parameters: float, each: float) -> Size:
    """A dense model of the usual shape: width 128 a layer, grouped keys of an eighth the width.

    12 w^2 parameters a layer and w = 128 l give l = (parameters / 12 / 128^2)^(1/3).
    """
    layers = max(1, round((parameters / 12 / 128**2) ** (1 / 3)))
    width = 128 * layers
    kv = 2 * layers * width / 8 * each
    return Size(name, parameters, each, layers, kv, 4.0 * layers * width)
