"""The documentation says what is so: pages are current, examples run, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from workbench import cli, docs
from workbench.core import method as registry
from workbench.core.method import make_method, methods
from workbench.core.sampling import Sampling
from workbench.testing.drafter_suite import DrafterSuite

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
LOSSLESS = "multi_round"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


@pytest.fixture
def documented_drafter(monkeypatch):
    """The drafter of add-a-method.md, registered for one test as if its file were there."""
    (source,) = blocks("docs/add-a-method.md", "python")
    module = types.ModuleType("workbench.drafters.last_successor")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    methods()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    exec(compile(source, "last_successor.py", "exec"), module.__dict__)
    return "last_successor"


def test_methods_page_is_current():
    assert docs.TARGET.read_text(encoding="utf-8") == docs.methods_page(), "run make docs"


def test_methods_page_shows_every_method_and_knob():
    page = docs.methods_page()
    for card in methods():
        assert f"### `{card.name}`" in page
        assert all(f"| `{knob.name}` |" in page for knob in card.knobs)


def test_documented_drafter_registers_under_its_file_name(documented_drafter):
    card = registry.find_method("drafter", documented_drafter)
    assert [knob.name for knob in card.knobs] == ["longest"]
    assert "### `last_successor`" in docs.method_section(card)


def test_documented_drafter_conforms(documented_drafter):
    verifier = make_method("verifier", LOSSLESS)
    suite = DrafterSuite(make_method("drafter", documented_drafter, longest=3))
    suite.check_budget(verifier)
    for sampling in (Sampling(0.0), Sampling(1.0)):
        suite.check_exact_output(sampling, verifier)
    suite.check_deterministic(verifier)


def test_documented_drafter_pays_on_the_embedded_model(documented_drafter):
    from workbench.engine.run import RunSettings, generate
    from workbench.models.load import load

    model = load("zoo:target", device="cpu")
    prompt = "x = [0, 0, 0, 0, 0, 0, 0,"
    plain = generate(RunSettings(model, prompt, "none", max_new_tokens=24))
    drafted = generate(RunSettings(model, prompt, documented_drafter, max_new_tokens=24))
    assert drafted.new_tokens == plain.new_tokens
    assert drafted.summary["mean_accepted"] > 0


def test_readme_python_runs(monkeypatch, tmp_path, capsys):
    first, *_ = blocks("README.md", "python")
    assert len(first.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    exec(compile(first, "README.md", "exec"), {"__name__": "readme"})
    assert "tokens a round" in capsys.readouterr().out
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("page", ["README.md", "docs/add-a-method.md"])
def test_commands_in_the_documentation_parse(page):
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith(".venv/bin/workbench ")]
    assert commands
    for line in commands:
        words = shlex.split(line, comments=True)[1:]
        cli.build_parser(words[0]).parse_args(words)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_in_the_documentation_exist(page):
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    text = "\n".join(
        [*blocks(page, "sh"), *re.findall(r"`(make [^`]*)`", (ROOT / page).read_text())]
    )
    named = set(re.findall(r"\bmake ([a-z]+)\b", text))
    assert named and named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    missing = []
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http") and not (page.parent / target).exists():
            missing.append(target)
    assert not missing


def test_glossary_has_the_four_acceptances_of_the_trace():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    for word in ("accepted", "emitted", "acceptance ratio", "node ratio"):
        assert f"**{word}** -" in text
    for field in ("mean_accepted", "mean_emitted"):
        assert f"`{field}`" in text
