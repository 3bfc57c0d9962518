"""pyproject.toml, constraints.txt, environment.yml and the Makefile say the same thing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BOUNDED = ("torch", "transformers", "panel", "bokeh", "plotly")
UI = {"panel", "bokeh", "plotly", "ipywidgets", "anywidget", "IPython", "jupyterlab", "widgets"}


def lock() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return [r for r in map(Requirement, texts) if r.name != PROJECT["name"]]


def test_names():
    assert PROJECT["name"] == "draft-workbench"
    assert PROJECT["scripts"] == {"workbench": "workbench.cli:main"}


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_lock_fits_the_bounds(requirement):
    assert requirement.name in lock(), "run make lock"
    assert requirement.specifier.contains(lock()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("name", BOUNDED)
def test_what_breaks_often_has_an_upper_bound(name):
    found = [r for r in requirements() if r.name == name]
    assert found
    for requirement in found:
        assert any(spec.operator in ("<", "<=", "==") for spec in requirement.specifier)


def test_the_gpu_machines_versions_are_allowed():
    for name, version in (("torch", "2.11.0"), ("transformers", "5.17.0")):
        (requirement,) = [r for r in requirements() if r.name == name]
        assert requirement.specifier.contains(version)
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.12.0")


def test_the_lock_fits_any_machine():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", row) for row in text.splitlines())
    assert len(lock()) == len(text.splitlines()), "a package is named twice"


def test_the_lock_holds_what_its_packages_need():
    """Everything that an installed locked package requires here is locked as well."""
    from importlib import metadata

    missing = set()
    for name in lock():
        if name == "torch":  # its build decides: one for CUDA brings the vendor's libraries along
            continue
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(needed.name) not in lock():
                missing.add(f"{name} needs {needed}")
    assert not missing


def test_conda_users_get_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    *conda, pip = environment["dependencies"]
    (python,) = [line for line in conda if line.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    (setuptools,) = [Requirement(line) for line in conda if line.startswith("setuptools")]
    assert setuptools.specifier.contains(lock()["setuptools"])
    assert pip["pip"] == [
        "--constraint constraints.txt",
        f"torch=={lock()['torch']}",
        "--editable .[all]",
    ]


def test_make_installs_the_locked_torch():
    (said,) = re.findall(r"(?m)^TORCH = torch==(\S+)$", (ROOT / "Makefile").read_text())
    assert Version(said) == lock()["torch"]


def test_the_extra_all_holds_every_other_extra():
    extras = dict(PROJECT["optional-dependencies"])
    (everything,) = map(Requirement, extras.pop("all"))
    assert everything.extras == set(extras)


def test_every_import_is_a_declared_dependency():
    """Third-party modules that the packages import, however deep, are in pyproject.toml."""
    provided = {"IPython": "ipykernel", "PIL": "plotly"}
    declared = {canonicalize_name(r.name) for r in requirements()}
    unknown = set()
    for path in [*(ROOT / "workbench").rglob("*.py"), *(ROOT / "widgets").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in (n.partition(".")[0] for n in names):
                ours = name in ("workbench", "widgets") or name in sys.stdlib_module_names
                if not ours and canonicalize_name(provided.get(name, name)) not in declared:
                    unknown.add(f"{path.relative_to(ROOT)}: {name}")
    assert not unknown


def test_engine_and_command_line_import_without_a_ui_library():
    script = f"""
import sys
class Without:  # as on a machine that lacks them: whoever looks finds nothing
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {UI | {"pandas", "pyarrow"}!r}:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import importlib, pkgutil, workbench
for module in pkgutil.walk_packages(workbench.__path__, 'workbench.'):
    # recipes need the extra `train`, and transformers' Trainer imports whatever it finds
    if not module.name.endswith('__main__') and '.training.' not in module.name:
        importlib.import_module(module.name)
print('imported', len([m for m in sys.modules if m.startswith('workbench')]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 30


def test_the_wheel_carries_data_and_no_notebooks(tmp_path):
    """Built from what is tracked: weights, cards, prompts and view code are inside."""
    import zipfile

    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / name).symlink_to(ROOT / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(tmp_path / "source")], check=True)
    (wheel,) = tmp_path.glob("draft_workbench-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    data = (".js", ".json", ".safetensors", ".txt", ".py")
    wanted = {n for n in names if n.startswith(("workbench/", "widgets/")) and n.endswith(data)}
    assert {n for n in wanted if (ROOT / n).is_file()} <= inside
    assert not [name for name in inside if name.endswith(".ipynb") or name.startswith("tests")]


def test_shapes_are_checked_while_tests_run():
    """The checker of tests/strict_types.py is on: a wrong dtype and a wrong shape are refused."""
    import torch
    from jaxtyping import TypeCheckError

    from workbench.core.sampling import top_p_law
    from workbench.core.tree import DraftTree

    with pytest.raises(TypeCheckError):
        top_p_law(torch.zeros(3, dtype=torch.long), 0.5)
    with pytest.raises(TypeCheckError):
        DraftTree(torch.zeros(2), (-1, 0))
    with pytest.raises(TypeCheckError):
        DraftTree(torch.zeros(1, dtype=torch.long), (-1,), probs=torch.ones(3))
