"""The command line as its users meet it: help, output, exit codes, what bad input gets."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time

import msgspec
import pytest
import torch

from workbench import cli
from workbench.cli import COMMANDS
from workbench.commands.generate import readable, report
from workbench.core.method import methods
from workbench.core.trace import Trace
from workbench.zoo.held_out import FOLDER, prompts

PROMPT = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder with a tiny random Llama and the embedded models' tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(FOLDER.parent / "weights" / "tokenizer").save_pretrained(folder)
    return folder


@pytest.fixture
def generate(run, checkpoint):
    """``workbench generate`` on the tiny checkpoint; options given later win."""

    def call(*words: str, prompt: str = PROMPT) -> tuple[int, str, str]:
        model = () if "--model" in words else ("--model", str(checkpoint))
        return run("generate", prompt, *model, "--max-new-tokens", "12", *words)

    return call


# Help


def test_top_help_names_every_command_and_where_to_start(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"    {command} " in out for command in COMMANDS)
    assert "start here" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_explains_and_shows_an_example(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"\nexamples:\n  workbench {command}" in out
    explained, _, options = out.partition("options:")
    assert len(explained.split("\n\n")[1].split()) >= 12, "too short to help a newcomer"
    assert "--debug" in options


def test_examples_are_accepted_by_their_own_parser():
    import shlex

    for command in COMMANDS:
        for example in cli._module(command).EXAMPLES:
            for part in example.partition(">")[0].partition("<")[0].split("|"):
                words = shlex.split(part)
                assert words[0] == "workbench"
                if "--help" not in words:
                    cli.build_parser(words[1]).parse_args(words[1:])


def test_no_command_is_a_mistake_that_shows_usage(run):
    code, _, err = run()
    assert code == 2
    assert "usage: workbench" in err


def test_help_needs_neither_torch_nor_a_ui_library():
    script = (
        "import sys; from workbench.cli import main; main(['--help']);"
        "print(sorted({'torch','panel','plotly','ipywidgets','widgets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


# generate


def test_generate_json_has_what_is_promised_and_adds_up(generate):
    code, out, _ = generate("--json")
    assert code == 0
    said = json.loads(out)
    promised = "text tokens new_tokens rounds mean_emitted mean_accepted tokens_per_s ms"
    assert set(promised.split()) <= set(said)
    assert said["new_tokens"] == len(said["tokens"]) == 12
    assert said["mean_emitted"] == pytest.approx(12 / said["rounds"])
    assert said["tokens_per_s"] == pytest.approx(12 / said["ms"] * 1e3)
    assert said["text"]


def test_generate_places_the_draft_and_tells_what_crossed(generate, checkpoint, tmp_path):
    words = ("--draft", str(checkpoint), "--draft-device", "cpu", "--trace", str(tmp_path / "t"))
    code, out, _ = generate(*words, "--json", "--device", "cpu")
    assert code == 0
    said = json.loads(out)
    assert (said["device"], said["draft_device"]) == ("cpu", "cpu")
    assert said["transfer_ms"] == said["transfer_bytes"] == 0, "one device: nothing crossed"
    trace = Trace.load(tmp_path / "t")
    assert "transfer" not in readable(trace, "")
    told = {"transfer_ms": 0.5, "transfer_bytes": 2000}
    rounds = [msgspec.structs.replace(done, report=told) for done in trace.rounds]
    apart = trace.with_(rounds=rounds, draft_device="cuda:0")
    block = readable(apart, "")
    assert f"({trace.draft_model} on cuda:0)" in block
    assert "0.50   ms a round between the devices, 2.0 kB" in block
    assert report(apart, "")["transfer_bytes"] == 2000 * len(rounds)


def test_generate_prints_a_block_for_people(generate):
    code, out, _ = generate()
    assert code == 0
    for word in ("new tokens", "rounds", "mean emitted", "mean accepted", "tokens/s", "greedy"):
        assert word in out


def test_prompt_from_standard_input(generate, monkeypatch):
    _, typed, _ = generate("--json")
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT))
    _, piped, _ = generate("--json", prompt="-")
    assert json.loads(piped)["tokens"] == json.loads(typed)["tokens"]


def test_greedy_text_does_not_depend_on_the_drafter(generate, checkpoint):
    said = set()
    for words in (
        ("--drafter", "none"),
        ("--drafter", "prompt_lookup"),
        ("--drafter", "token_recycling", "--set", "drafter.k=4"),
        ("--draft", str(checkpoint), "--set", "policy.depth=3"),
    ):
        code, out, err = generate("--json", *words)
        assert code == 0, err
        said.add(tuple(json.loads(out)["tokens"]))
    assert len(said) == 1


def test_seed_decides_sampling(generate):
    hot = ("--temperature", "1.5", "--top-k", "500", "--top-p", "0.95", "--json", "--seed")
    first, again, other = (json.loads(generate(*hot, s)[1])["tokens"] for s in ("1", "1", "2"))
    assert first == again != other


def test_trace_is_saved_and_read_back(generate, tmp_path):
    path = tmp_path / "run.json"
    code, out, _ = generate("--json", "--trace", str(path), "--set", "policy.depth=2")
    assert code == 0
    trace = Trace.load(path)
    assert trace.new_tokens == json.loads(out)["tokens"]
    assert trace.policy.knobs["depth"] == 2
    assert max(max(r.depth, default=0) for r in trace.rounds) <= 2


def test_interrupt_keeps_the_partial_trace(generate, monkeypatch, tmp_path):
    from workbench.engine.run import Run

    whole = Run.rounds

    def interrupted(self):
        for count, done in enumerate(whole(self)):
            yield done
            if count == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(Run, "rounds", interrupted)
    path = tmp_path / "partial.json"
    code, out, _ = generate("--json", "--trace", str(path), "--drafter", "none")
    assert code == 130
    trace = Trace.load(path)
    assert len(trace.rounds) == 3
    assert trace.finish == "stopped"
    assert json.loads(out)["new_tokens"] == 3


@pytest.mark.slow
def test_a_real_interrupt_ends_with_130_and_a_readable_trace(checkpoint, tmp_path):
    path = tmp_path / "partial.json"
    words = ["generate", PROMPT, "--model", str(checkpoint), "--drafter", "none", "--json"]
    words += ["--trace", str(path), "--max-new-tokens", "230"]
    slow = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, time; from workbench.engine import run as engine; from workbench import cli\n"
        "whole = engine.Run.rounds\n"
        "def rounds(self):\n"
        "    for done in whole(self):\n"
        "        time.sleep(0.02); print('round', file=sys.stderr, flush=True); yield done\n"
        "engine.Run.rounds = rounds\n"
        f"sys.exit(cli.main({words!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline().strip().endswith("round")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    trace = Trace.load(path)
    assert 0 < len(trace.new_tokens) < 230
    assert json.loads(out)["tokens"] == trace.new_tokens


# What bad input gets: exit code 2, the parameter, the fix, no traceback

MISTAKES = {
    "unknown drafter": (("--drafter", "token_recyclin"), "token_recycling"),
    "unknown verifier": (("--verifier", "exactmatch"), "exact_match"),
    "unknown policy": (("--policy", "fixd"), "fixed"),
    "knob out of range": (("--set", "policy.depth=0"), "depth"),
    "knob of the wrong type": (("--set", "policy.depth=many"), "whole number"),
    "unknown knob": (("--set", "policy.dept=3"), "depth"),
    "unknown family": (("--set", "draftr.k=3"), "drafter"),
    "no value": (("--set", "policy.depth"), "FAMILY.KNOB=VALUE"),
    "negative temperature": (("--temperature", "-1"), "temperature"),
    "top-p of zero": (("--top-p", "0", "--temperature", "1"), "top_p"),
    "no new tokens": (("--max-new-tokens", "0"), "1 or more"),
    "not a number": (("--max-new-tokens", "ten"), "invalid int"),
    "unknown option": (("--temprature", "1"), "unrecognized"),
    "unknown dtype": (("--dtype", "float8"), "bfloat16"),
    "unknown device": (("--device", "gpu"), "cuda"),
    "unknown device of the draft": (
        ("--drafter", "draft_model", "--draft", "zoo:draft", "--draft-device", "gpu"),
        "--draft-device='gpu': use 'cpu', 'cuda' or 'cuda:0'",
    ),
    "a device for no draft": (("--draft-device", "cpu"), "name one with --draft"),
    "no threads": (("--threads", "0"), "from 1 to"),
    "draft model missing": (("--drafter", "draft_model"), "draft"),
    "no such folder": (("--model", "./nowhere"), "no such folder"),
    "no such embedded model": (("--model", "zoo:targt"), "zoo:"),
}


@pytest.mark.parametrize("words, hint", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(generate, words, hint):
    code, out, err = generate(*words)
    assert code == 2
    assert out == ""
    assert hint in err
    assert "Traceback" not in err


def test_empty_prompt(generate):
    code, _, err = generate(prompt="")
    assert code == 2
    assert "prompt" in err


def test_prompt_longer_than_the_context(generate):
    code, _, err = generate(prompt="x = 1\n" * 500)
    assert code == 2
    assert "256" in err


def test_trace_into_a_missing_folder_is_refused_before_the_work(generate, tmp_path):
    code, out, err = generate("--trace", str(tmp_path / "nowhere" / "run.json"))
    assert (code, out) == (2, "")
    assert "--trace" in err


def test_text_is_printed_even_if_the_trace_cannot_be_written(generate, monkeypatch, tmp_path):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trace, "save", full)
    code, out, err = generate("--json", "--trace", str(tmp_path / "run.json"))
    assert code == 2
    assert json.loads(out)["new_tokens"] == 12
    assert "No space left" in err


def test_pickled_weights_are_refused(generate, checkpoint, tmp_path):
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    code, _, err = generate("--model", str(tmp_path))
    assert code == 2
    assert "pickle" in err


# The other commands


def test_methods_json_is_the_registry(run):
    code, out, _ = run("methods", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [(r["family"], r["name"]) for r in rows] == [(c.family, c.name) for c in methods()]
    assert all({"title", "paper", "needs", "lossless", "knobs"} <= set(r) for r in rows)


def test_methods_of_one_family_for_people(run):
    _, out, _ = run("methods", "--family", "verifier")
    assert "exact_match" in out
    assert "token_recycling" not in out


def test_zoo_prompts_lists_and_prints(run):
    _, listed, _ = run("zoo", "prompts")
    assert len(listed.splitlines()) == len(prompts())
    first = prompts()[0]
    assert run("zoo", "prompts", first.name)[1] == first.text
    assert run("zoo", "prompts", "code_atrgetter")[0] == 2
