"""A board that shows nothing and can do nothing; tests give it what they look at."""

from __future__ import annotations

from types import SimpleNamespace


class BareBoard(SimpleNamespace):
    """Everything a host asks of a board."""

    title, accepts, buttons, knobs, bands, titles = "", "", {}, {}, (), {}
    sections, settings = (), {}

    def change(self, key, value):
        self.settings[key] = value
        return True

    def contents(self):
        return {}

    def verbs(self):
        return frozenset()

    def listen(self, listener):
        pass

    def close(self):
        pass
