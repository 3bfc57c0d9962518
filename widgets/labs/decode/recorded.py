"""The run that the lab opens on: recorded once by a command, shown before any model is loaded.

Record it again with ``python -m widgets.labs.decode.recorded``.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from widgets.labs.recordings import rounded
from workbench.core.errors import TraceError
from workbench.core.trace import Trace

FOLDER, NAME = "widgets.labs", "recorded/decode.json"
PROMPT = "code_queue_put"
SETTINGS = {
    "drafter.draft_model.siblings": 3,
    "policy.fixed.depth": 4,
    "temperature": 0.7,
    "max_new_tokens": 44,
    "seed": 4,
}
TOP = 5  # tokens kept of every law: a picture shows no more, and the file stays small


@cache
def recorded_trace() -> Trace | None:
    """The recorded run; None where the package was installed without it."""
    file = files(FOLDER) / NAME
    try:
        return Trace.from_json(file.read_bytes(), NAME)
    except (OSError, TraceError):
        return None


def record(path: Path) -> Trace:
    """Run the lab's own controller on the recorded prompt and write what it shows."""
    from widgets.labs.decode.controller import DecodeController
    from workbench.zoo.held_out import prompt

    lab = DecodeController("zoo:target", "zoo:draft", prompt(PROMPT).text, **SETTINGS)
    for _ in range(2):  # the first run also makes what is made at first use
        lab.start()
        if not lab.wait(600):
            raise TimeoutError("the recorded run did not end within 600 s")
    view = lab.view()
    if view.errors or view.trace is None:
        raise RuntimeError(f"the run to record went wrong: {dict(view.errors)}")
    plain = msgspec.json.decode(view.trace.to_json())
    for round_ in plain["rounds"]:
        for top in (*round_["p_top"], *round_["q_top"]):
            top["ids"], top["probs"] = top["ids"][:TOP], top["probs"][:TOP]
    trace = Trace.from_json(msgspec.json.encode(rounded(plain)), "the recorded run")
    trace.save(path)
    return trace


if __name__ == "__main__":
    target = Path(str(files(FOLDER) / NAME))
    done = record(target)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
    print({key: round(value, 3) for key, value in done.summary.items()})
