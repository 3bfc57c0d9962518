"""Several of some choices in JupyterLab: a chip for each chosen one, and a box to type the next.

*Idea*: ipywidgets' own tags box hides its input until it is clicked, so that letters typed a moment
early command the notebook, and it drops an unknown name without a word. Here the box is always
there, offers what is left, and hands on what was typed: the lab says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as ipw
import traitlets

HINT = "add…"


class ManyBox(ipw.HBox):
    """Chips and a box.

    Args:
        value: what is chosen.
        choices: what can be.
        title: of the field, for screen readers.
    """

    value = traitlets.List(traitlets.Unicode())

    def __init__(self, value: Sequence[str], choices: Sequence[str], title: str = ""):
        self.choices, self._title = tuple(choices), title
        self.box = ipw.Combobox(placeholder=HINT, continuous_update=False)
        self.box.add_class("dw-adder")
        self.box.tooltip = f"Add to {title}: type a name, or choose one"
        # The box itself is never put in anew: it would lose the focus, and letters the box.
        self._chips = ipw.HBox(layout=ipw.Layout(display="contents"))
        super().__init__(
            [self._chips, self.box],
            value=list(value),
            layout=ipw.Layout(flex_flow="row wrap", margin="0"),
        )
        self.add_class("dw-chips")
        self.box.observe(self._typed, names="value")
        self.observe(lambda change: self._show(), names="value")
        self._show()

    def _show(self) -> None:
        self.box.options = [name for name in self.choices if name not in self.value]
        self._chips.children = [*map(self._chip, self.value)]

    def _chip(self, name: str) -> ipw.Button:
        chip = ipw.Button(description=f"{name} ✕", tooltip=f"Remove {name} from {self._title}")
        chip.add_class("dw-chip")
        chip.on_click(lambda _: self._put([one for one in self.value if one != name]))
        return chip

    def _typed(self, change: dict) -> None:
        name = change["new"].strip()
        if name:
            self.box.value = ""
            self._put([*self.value, name])

    def _put(self, wanted: list[str]) -> None:
        """Offer a value; whoever refuses it puts the old one back."""
        self.value = list(dict.fromkeys(wanted))
