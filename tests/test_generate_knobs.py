"""How ``workbench generate --set`` reads knobs."""

from workbench.commands.generate import parse_knobs


def test_knob_text_is_split_at_the_first_equals_sign():
    assert parse_knobs(["drafter.prefer=a=b"])["drafter"] == {"prefer": "a=b"}
