"""A static twin for a widget: what a page without a kernel shows in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Twin = Callable[[], str]


class StaticTwin:
    """Mixin before a widget class: ``_repr_mimebundle_`` = the live widget plus a snapshot.

    A page with a kernel shows the widget; GitHub, nbconvert and a closed notebook show the
    snapshot. ``svg_twin`` and ``html_twin`` are functions without arguments; ``name`` makes a
    short stable ``text/plain`` so that notebook tests have something to compare.
    """

    svg_twin: Twin | None = None
    html_twin: Twin | None = None
    twin_name: str = ""

    def with_static_twin(
        self, name: str = "", *, svg: Twin | None = None, html: Twin | None = None
    ) -> StaticTwin:
        """Set the snapshot; returns the widget itself."""
        self.twin_name, self.svg_twin, self.html_twin = name, svg, html
        return self

    def _repr_mimebundle_(self, **options: Any) -> Any:
        live = super()._repr_mimebundle_(**options)
        bundle, metadata = live if isinstance(live, tuple) else (live, {})
        bundle = {**(bundle or {}), "text/plain": f"<{self.twin_name or type(self).__name__}>"}
        if self.svg_twin is not None:
            bundle["image/svg+xml"] = self.svg_twin()
        page = self.html_twin or self.svg_twin
        if page is not None:
            bundle["text/html"] = page()
        return bundle, metadata
