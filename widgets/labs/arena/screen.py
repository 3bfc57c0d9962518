"""What stands in each cell of the arena's page, for each of the things that it can show."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from widgets.labs import frame
from widgets.labs.arena import forecast, form, pictures, plan, tables
from widgets.labs.arena.recorded import recording
from widgets.labs.worker import Status
from workbench.bench.arena import Arena
from workbench.bench.cost_model import CostReport
from workbench.bench.elsewhere import Prediction, predict
from workbench.bench.roofline import KNOWN, link_ms
from workbench.bench.turn import words
from workbench.models.devices import device_names

if TYPE_CHECKING:
    from widgets.labs.arena.controller import ArenaLab

CROSSING = 16  # nodes whose transfer is told where the best tree has none
GUESSED = [0.6]  # acceptance of the first choice, where nothing was ever measured


def contents(lab: ArenaLab) -> dict[str, Any]:
    """Everything that is shown now."""
    status, (said, problem) = lab.status, lab.planned
    error = lab.error or problem
    note = words(lab.waiting) if lab.waiting else lab.note or ("" if error else said)
    told = f'<div class="dw-note" role="status">{escape(note)}</div>' if note else ""
    shown = {"arena": _arena, "cost": _cost, "elsewhere": _elsewhere, "tune": _search}
    return {
        "head": frame.head_html(lab.title, form.SHOWN[lab.show]),
        "progress": frame.progress_html(status.line, status.fraction),
        "error": frame.error_html(error) + told,
        **shown[lab.show](lab),
    }


def status(arena: Arena) -> Status:
    """How far a sweep is."""
    seen, paused = arena.progress, " · paused" if arena.state == "paused" else ""
    left = "" if seen.eta_s is None or not seen.done else f" · {seen.eta_s:.0f} s left"
    failed = f" · {seen.failed} failed" if seen.failed else ""
    line = f"{seen.done} of {seen.total}{left}{failed}" if seen.line else "Loading and warming up"
    share = seen.done / seen.total if seen.line and seen.total else None
    if arena.waiting:
        line, share = "Waiting for its turn", None
    if arena.stopping:
        return Status("busy", f"{line} · stops after the measurement under way", share)
    return Status("paused" if paused else "busy", line + paused, share)


def verbs(lab: ArenaLab) -> frozenset[str]:
    """What can be pressed now."""
    state, found = lab.status.state, {"reset"}
    found |= {"undo"} if lab.history.can_undo else set()
    found |= {"redo"} if lab.history.can_redo else set()
    if state == "idle":
        found |= {"start"} if lab.show != "elsewhere" else set()
        found |= {"look"} if lab.show == "arena" and lab.settings["folder"] else set()
    else:
        found |= {"pause", "stop"}
        found |= {"start"} if state == "paused" else set()
    own = {"arena": lab.results, "cost": lab.report, "tune": lab.trials, "elsewhere": True}
    return frozenset(found | ({"export"} if own[lab.show] else set()))


def cost_of(lab: ArenaLab) -> tuple[CostReport | None, str]:
    """The lab's cost report, else the recorded one and what it is of."""
    kept = recording()
    if lab.report is not None or kept is None:
        return lab.report, ""
    return kept.cost, f"recorded example: {kept.drafter}"


def trials_of(lab: ArenaLab) -> tuple[list[dict[str, Any]], str]:
    """The lab's trials, else the recorded ones and that they are."""
    kept = recording()
    if lab.trials or kept is None or lab.worker.running("tune"):
        return lab.trials, ""
    return kept.trials, "recorded example"


def _arena(lab: ArenaLab) -> dict[str, Any]:
    results, chosen = lab.shown, lab.chosen
    return {
        "main": pictures.bars(pictures.ranking(results, chosen)[0]),
        "detail": tables.cell(results, chosen),
        "table": tables.arena(results, chosen),
        **pictures.arena(results, lab.settings["picture"]),
    }


def _cost(lab: ArenaLab) -> dict[str, Any]:
    report, said = cost_of(lab)
    return {
        **pictures.drawn(pictures.cost_infos(report, "recorded example" if said else "")),
        "detail": forecast.best(report, said),
        "table": forecast.cost(report),
    }


class Predicted(NamedTuple):
    """At the form's place, with the draft elsewhere, and on every hardware that is known."""

    here: Prediction
    places: dict[str, Prediction]
    everywhere: dict[str, Prediction]


def predicted(lab: ArenaLab) -> Predicted:
    """What the form describes."""
    report, settings = cost_of(lab)[0], lab.settings
    acceptance = report.acceptance if report else GUESSED
    draft_ms = report.cost.draft_ms if report else 0.0

    def at(where: Any = None, **changes: Any) -> Prediction:
        return predict(acceptance, plan.place({**settings, **changes}, where), draft_ms)

    places = {"beside the target": at(placement=form.BESIDE)}
    if settings["draft_b"] > 0:
        apart = at(placement=form.APART)
        places[f"on {settings['draft_hardware']}"] = apart
        places["no draft model, the same acceptance"] = at(draft_b=0.0)
    return Predicted(at(), places, {one.name: at(one) for one in KNOWN})


def _elsewhere(lab: ArenaLab) -> dict[str, Any]:
    report, said = cost_of(lab)
    found = predicted(lab)
    acceptance = report.acceptance if report else GUESSED
    ranks = ", ".join(f"{a:.2f}" for a in acceptance[:4])
    crossing = _crossing(lab, found.here)
    about = f"Acceptance by rank {ranks} … ({said or 'measured under Cost'}), taken over as it is."
    about += f" {_real(lab)}" if lab.settings["placement"] == form.APART else ""
    return {
        **pictures.elsewhere(pictures.elsewhere_infos(found.here, found.places)),
        "detail": forecast.prediction(found.here, acceptance, about, crossing),
        "table": forecast.everywhere(found.everywhere),
    }


def _real(lab: ArenaLab) -> str:
    """Where a placement is more than a prediction."""
    here = device_names()
    if len(here) > 1:
        return (
            f"This machine has {', '.join(here)}: the field “draft on” under {form.SHOWN['arena']},"
            " and that of the decode lab, really puts the draft there and times what crosses."
        )
    return (
        "Where a machine has two devices, a field “draft on” here and in the decode lab, and the"
        " option --draft-device, really put the draft on one and time what crosses; this one has"
        " the CPU only."
    )


def _crossing(lab: ArenaLab, here: Prediction) -> str:
    """How long a tree takes to the target's device, also where no tree pays for that."""
    place = plan.place(lab.settings)
    if place.draft_hardware is None:
        return ""
    some = link_ms(place.hardware, CROSSING, place.vocabulary, CROSSING // 4)
    return f"{here.link_ms:.2f} ms ({CROSSING} nodes: {some:.2f} ms)"


def _search(lab: ArenaLab) -> dict[str, Any]:
    trials, said = trials_of(lab)
    about = f"tuned by: {lab.preset.command}" if lab.preset else ""
    return {
        **pictures.tune(trials, said),
        "detail": tables.preset(lab.preset, lab.warning, about),
        "table": tables.trials(trials),
    }


def titles(lab: ArenaLab) -> Mapping[str, Mapping[Any, str]]:
    """Field -> choice -> what people read."""
    shown = lab.shown
    names = {row["cell"]: row["label"] for row in shown.table} if shown else {}
    if lab.arena is not None:
        names |= {cell.id: cell.label for cell in lab.arena.sweep.cells}
    return {
        "show": form.SHOWN,
        "prompts": form.PROMPTS,
        "hardware": form.HARDWARE,
        "placement": form.PLACES,
        "picture": form.PICTURES,
        "cell": {"": "the fastest lossless", **names},
    }
