"""Controllers are free of UI libraries: one fresh process imports and draws them all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import widgets.labs
from widgets.labs import board_panel

UI = {"panel", "bokeh", "ipywidgets", "plotly", "anywidget"}
HEAVY = {"optuna"}  # loaded with the first search, not with the lab
LABS = sorted(path.parent.name for path in Path(widgets.labs.__path__[0]).glob("*/controller.py"))


def test_no_controller_imports_a_ui_library_not_even_to_say_what_it_shows():
    code = f"""
import importlib, json, sys
found = {{}}
for lab in {LABS!r}:
    name = f"widgets.labs.{{lab}}.controller"
    module = importlib.import_module(name)
    boards = [
        value for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == name and hasattr(value, "contents")
    ]
    shown = [len(board().contents()) for board in boards]
    found[lab] = shown, sorted({UI | HEAVY!r} & set(sys.modules))
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [lab for lab, (shown, _) in found.items() if not any(shown)] in ([], ["decode"])
    assert {lab: imported for lab, (_, imported) in found.items() if imported} == {}


def test_the_dashboard_has_pandas_before_a_sweep_imports_it_beside_a_drawing():
    assert vars(board_panel)["pandas"] is sys.modules["pandas"], "imported when it is first needed"
