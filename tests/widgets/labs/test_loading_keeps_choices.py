"""A bench's fields have the values before its model is loaded that they have afterwards.

A value that the lab chose anew would be sent to a page on which somebody may be choosing.
"""

from __future__ import annotations

import pytest

from widgets.labs.adapters.controller import AdapterLab
from widgets.labs.experts.controller import ExpertLab
from widgets.labs.pruning.controller import PruningLab


def values(lab) -> dict:
    fields = [field for section in lab.sections for field in section.fields]
    return {field.key: lab.settings[field.key] for field in fields}


@pytest.mark.parametrize(
    ("lab_class", "family"),
    [(AdapterLab, "llama"), (PruningLab, "llama"), (ExpertLab, "mixtral")],
    ids=["adapters", "pruning", "experts"],
)
def test_loading_changes_no_choice(checkpoint, lab_class, family):
    lab = lab_class(str(checkpoint(family, max_position_embeddings=512)), "")
    try:
        before = values(lab)
        lab.warm()
        assert lab.worker.wait(60) and lab.model is not None
        after = values(lab)
        assert {key: after[key] for key in before.keys() & after.keys()} == before
    finally:
        lab.close()
