"""The expert lab without its looks: a mixture, its routing of a text, and interventions.

No UI library is imported here. Every verb may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from widgets.labs.bench import DIALS, SPEED_PROMPTS, Bench
from widgets.labs.board import Cell, Section
from widgets.labs.experts import facts, form, pictures
from widgets.labs.experts.costs import Costs
from widgets.labs.experts.forces import in_force
from widgets.labs.experts.recorded import recording
from widgets.labs.worker import Task
from workbench.core.errors import BadInput, WorkbenchError
from workbench.core.method import find_method, methods
from workbench.core.routing import RoutingRecord, experts_at, p_for_mean
from workbench.core.steering import Action, Intervention
from workbench.engine.dials import held_out
from workbench.models.model import Model
from workbench.models.routers import mixture_routers, record_routing, routers_of
from workbench.models.steering import check_steering

TEXT = "for key, value in sorted(self._items.items()):\n    print(key, value)\n"
P = "router.top_p.p"
LEAST_EXPERTS = 8  # that sliders offer before the model is there


class ExpertLab(Bench):
    """State of one expert lab.

    Args:
        model: a mixture: name, folder, or loaded.
        draft: model that drafts for the dials and the trees; empty = none.
        text: whose routing is shown.

    Raises:
        ModelError: in the lab, where the model has no experts.
    """

    title = "Expert lab"
    knobs: Mapping[str, str] = MappingProxyType(
        {
            "ban": "Ban",
            "force": "Force",
            "weigh": "Re-weight",
            **Bench.knobs,
            "trees": "Measure trees",
            "cache": "Simulate cache",
        }
    )
    bands: tuple[tuple[Cell, ...], ...] = (
        (Cell("grid", "plot", 270, 1.9), Cell("cell", "plot", 230, 1.0)),
        (Cell("picture", "plot", 240, 1.4), Cell("facts", "html", 220, 1.0)),
        (Cell("load", "plot", 200, 1.0), DIALS._replace(share=1.5)),
    )
    looks = frozenset({"scope", "factor", "show"})  # what the next gesture means, and the picture

    def __init__(
        self,
        model: str | Model = "zoo:moe",
        draft: str | Model = "zoo:draft",
        text: str = TEXT,
    ):
        super().__init__(model, draft)
        self._text = text
        self._steering: ExitStack | None = None
        self._in_force: tuple = ()
        self._shown_tokens: tuple[int, ...] = ()
        self.pieces: tuple[str, ...] = ()
        self.record: RoutingRecord | None = None  # as steered
        self.plain: RoutingRecord | None = None  # as the model decides
        self.text_loss = self.plain_loss = 0.0
        self.selected = (0, 0)  # layer as it stands in the grid, token
        self.expert = 0
        self.costs = Costs()
        self._dense = False  # loaded, and it has no experts

    # ---- forms -----------------------------------------------------------------------------------

    def forms(self) -> tuple[Section, ...]:
        """Text, rule, interventions, what is drawn, and the cache."""
        experts = self.record.expert_count if self.record else LEAST_EXPERTS
        rule, mean = self.value("router", "top_k"), None
        if rule == "top_p" and self.record is not None:
            mean = experts_at(self.record, self.value(P, find_method("router", rule).make().p))
        return form.sections(rule, self.value("show", form.FIRST), self._text, experts, mean)

    def change(self, key: str, value: Any) -> bool:
        """Change one setting; the mean number of experts is another way to set p."""
        if key != form.MEAN or self.record is None:
            return super().change(key, value)
        try:
            p, self._error = p_for_mean(self.record, float(value)), ""
        except (WorkbenchError, TypeError, ValueError) as error:
            self._error = str(error)
            self._mark()
            return False
        return super().change(P, p)

    @property
    def titles(self) -> Mapping[str, Mapping[Any, str]]:
        return {
            "router": {card.name: card.title for card in methods("router")},
            "show": pictures.SHOWN,
        }

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """In force, oldest first."""
        return self.value("interventions", ())

    # ---- the work --------------------------------------------------------------------------------

    def prepared(self, task: Task) -> None:
        """Refuse a model without experts before anything is measured."""
        assert self.model is not None  # loaded
        self._dense = not routers_of(self.model.network)
        mixture_routers(self.model.network)
        self._read_text()

    def _read_text(self) -> None:
        """The text's routing and loss with nothing in force."""
        assert self.model is not None  # loaded
        tokens = tuple(self.model.encode(self.settings["text"]))
        if len(tokens) < 2:
            raise BadInput(f"text={self.settings['text']!r}: give two tokens or more")
        with self.model.lock:
            self._let_go()
            self.plain, self.plain_loss = self._look(tokens)
        self._shown_tokens, self.record, self.text_loss = tokens, self.plain, self.plain_loss
        self.pieces = tuple(self.model.piece(token) for token in tokens)
        self.selected = (0, 0)
        self.expert = self.record.layers[min(self.record.layers)].ranked(0)[0][0]

    def _look(self, tokens: tuple[int, ...]) -> tuple[RoutingRecord, float]:
        assert self.model is not None  # loaded
        return record_routing(self.model, tokens), held_out(self.model, torch.tensor([tokens]))[0]

    def apply(self, task: Task) -> None:
        """Put the rule and the interventions in force, and look at the text again."""
        assert self.model is not None  # prepared
        if tuple(self.model.encode(self.settings["text"])) != self._shown_tokens:
            self._read_text()
        rule = self._rule()
        force = (rule, self.interventions, self._shown_tokens)
        if force == self._in_force:
            return
        self._let_go()
        if rule != find_method("router", "top_k").make() or self.interventions:
            self._steering = in_force(self.model, rule, self.interventions)
        self.record, self.text_loss = self._look(self._shown_tokens)
        self.costs = Costs()  # the old ones were measured on other routes
        self._in_force = force

    def _rule(self) -> Any:
        name = self.settings["router"]
        return find_method("router", name).make(**form.chosen(self.settings, name))

    def _let_go(self) -> None:
        self._in_force, self.record, self.text_loss = (), self.plain, self.plain_loss
        if self._steering is not None:
            self._steering.close()
            self._steering = None

    @property
    def untouched(self) -> bool:
        """The routers decide as they were trained to."""
        return self._steering is None

    def restore(self) -> None:
        """Take the hooks off."""
        self._let_go()

    def touched(self, key: str) -> None:
        """What only changes a picture is drawn; the cache is replayed where it was before."""
        if key in self.looks:
            return
        if key.startswith(form.FLOW):
            if self.costs.reports:
                self.cache()
            return
        super().touched(key)

    # ---- interventions ---------------------------------------------------------------------------

    def where(self) -> tuple[int | None, int | None]:
        """Layer number and position that the scope names; None = all."""
        at, token = self.selected
        layers = tuple(self.record.layers) if self.record else (0,)
        scope = self.settings["scope"]
        return (
            layers[at] if "layer" in scope else None,
            token if "token" in scope else None,
        )

    def ban(self) -> None:
        """Ban the selected expert in the scope, or lift that very ban."""
        self._intervene("ban")

    def force(self) -> None:
        """Force the selected expert in the scope, or stop forcing it there."""
        self._intervene("force")

    def weigh(self) -> None:
        """Multiply the selected expert's weight in the scope by the factor."""
        self._intervene("weigh", self.settings["factor"])

    def _intervene(self, action: Action, factor: float = 1.0) -> None:
        with self._lock:
            try:
                if self.record is None or self.model is None:
                    raise BadInput(f"{action}: {facts.not_yet(self.name, self._dense)}")
                one = Intervention(action, self.expert, *self.where(), factor)
                others = tuple(x for x in self.interventions if not _same_place(x, one))
                given = others if one in self.interventions else (*others, one)
                check_steering(self.model.network, self._rule(), given)
                self._error = ""
                changed = self.put("interventions", given)
            except WorkbenchError as error:
                self._error, changed = str(error), False
        if changed:
            self.touched("interventions")
        self._mark()

    def handle(self, cell: str, event: Mapping[str, Any]) -> None:
        """A click selects: a cell of the grid, or an expert of the bars beside it."""
        data = event.get("customdata")
        if self.record is None:
            return
        if cell == "grid" and isinstance(data, (list, tuple)) and len(data) == 2:
            at, token = int(data[0]), int(data[1])
            if not (0 <= at < len(self.record.layers) and 0 <= token < len(self.pieces)):
                return
            self.selected = (at, token)
            first = list(self.record.layers.values())[at].ranked(0)[0][token]
            self.expert = max(0, first)
        elif cell == "cell" and isinstance(data, (int, float)):
            self.expert = min(max(0, int(data)), self.record.expert_count - 1)
        self._mark()

    # ---- trees and cache -------------------------------------------------------------------------

    def trees(self) -> None:
        """Decode with trees of every size and count the experts of each verification."""
        self.worker.ask("trees", self._measure_trees)

    def _measure_trees(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None  # prepared
        self.costs.verify_trees(self.model, self.draft, self.texts()[:SPEED_PROMPTS], task)
        self._show("gain" if self.value("show") == "gain" else "trees")

    def cache(self) -> None:
        """Replay the text's routing through caches of every size."""
        self.worker.ask("cache", self._simulate)

    def _simulate(self, task: Task) -> None:
        self.prepare(task)
        assert self.model is not None and self.record is not None  # prepared
        flow = form.expertflow(self.settings)
        self.costs.replay(self.model, self.record, flow, self.texts()[SPEED_PROMPTS:], task)
        self._show("cache")

    def _show(self, name: str) -> None:
        self.put("show", name)
        self._mark()

    # ---- what is shown ---------------------------------------------------------------------------

    def cells(self) -> dict[str, Any]:
        """The lab's own cells."""
        record, plain = self.record, self.plain
        if record is None or plain is None:
            example = recording()
            if example is None:
                return pictures.EMPTY
            old, loss = example.record, example.loss_nats
            told = facts.opening_html(example.said, self.name, self._dense)
            shown = {"picture": self._picture(old, old), "facts": told}
            shown["facts"] += facts.text_html(loss, loss, old)
            return {**pictures.opening(old, example.pieces), **shown}
        token = self.selected[1]
        return {
            "grid": pictures.grid(record, self.pieces, self._marked(record)),
            "cell": pictures.cell(record, plain, self.selected, self.pieces[token], self.expert),
            "picture": self._picture(record, plain),
            "load": pictures.load(record),
            "facts": self._facts(record),
        }

    def _marked(self, record: RoutingRecord) -> list[tuple[int, int]]:
        """The selected cell, and cells with an intervention of their own."""
        numbers = list(record.layers)
        own = [
            (numbers.index(one.layer), one.position)
            for one in self.interventions
            if one.layer is not None and one.position is not None
        ]
        return [self.selected, *own]

    def _picture(self, record: RoutingRecord, plain: RoutingRecord) -> dict[str, Any]:
        show = self.settings["show"]
        if show == "entropy":
            return pictures.entropy(record, plain, self.selected[0])
        if show in ("trees", "gain"):
            return getattr(pictures, show)(self.costs.points)
        if show == "cache":
            return pictures.cache(self.costs.reports, self.costs.report)
        if show == "change of load":
            return pictures.load(record, plain)
        return pictures.flow(record)

    def _facts(self, record: RoutingRecord) -> str:
        layer, token = self.where()
        where = (
            f"expert {self.expert}, "
            + ("all layers" if layer is None else f"layer {layer}")
            + (", all tokens" if token is None else f", token {token} “{self.pieces[token]}”")
        )
        parts = [
            facts.interventions_html(self.interventions, where),
            facts.text_html(self.text_loss, self.plain_loss, record),
        ]
        if self.settings["show"] in ("trees", "gain"):
            parts.append(facts.trees_html(self.costs.points))
        if self.settings["show"] == "cache":
            parts.append(
                facts.cache_html(self.costs.report, self.costs.recall, record.expert_count)
            )
        return "".join(parts)

    def verbs(self) -> frozenset[str]:
        """What can be pressed now."""
        found = {"trees", "cache"}
        found |= {"ban", "force", "weigh"} if self.record is not None else set()
        return super().verbs() | found


def _same_place(one: Intervention, other: Intervention) -> bool:
    """Whether they differ in the factor at most."""
    return replace(one, factor=1.0) == replace(other, factor=1.0)
