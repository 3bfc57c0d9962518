"""The theme: colours that can be told apart and read, numbers written the same everywhere."""

from __future__ import annotations

import dataclasses

import pytest

from widgets import theme


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_reads_on_every_ground(mode):
    colours = theme.palette(mode)
    for ground in ("paper", "surface", "accepted_fill", "bonus_fill", "corrected_fill"):
        assert contrast(colours.text, getattr(colours, ground)) > 7, ground
    assert contrast(colours.muted, colours.paper) > 4.5
    assert contrast(colours.tip_text, colours.tip) > 7
    for mark in ("accent", "accepted", "corrected", "bonus"):  # lines and shapes, not text
        assert contrast(getattr(colours, mark), colours.paper) > 3, mark


def test_one_colour_a_role_so_that_a_figure_can_be_darkened_anywhere():
    light, dark = dataclasses.astuple(theme.LIGHT), dataclasses.astuple(theme.DARK)
    assert len(set(light)) == len(light), "two roles share a light colour"
    assert not set(light) & set(dark), "a dark colour would be swapped again"
    assert theme.swap_table() == dict(zip(light, dark, strict=True))


def test_fates_differ_without_colour():
    stream = [theme.FATES[name] for name in ("accepted", "bonus", "corrected")]
    assert len({style.underline for style in stream}) == 3
    assert {style.name for style in stream} == {"accepted", "bonus", "corrected"}
    tree = [theme.FATES[name].dash for name in ("accepted", "rejected", "untested")]
    assert len(set(tree)) == 3


def test_both_modes_define_every_variable():
    css = theme.css()
    for field in dataclasses.fields(theme.Palette):
        assert css.count(f"--dw-{field.name.replace('_', '-')}:") == 4, field.name


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (theme.visible(" a\n"), "·a⏎"),
        (theme.visible("\t\r"), "⇥␍"),
        (theme.visible(""), "∅"),
        (theme.chance(0.812), "0.81"),
        (theme.chance(0.001), "<0.01"),
        (theme.chance(0), "0.00"),
        (theme.chance(None), "–"),
        (theme.milliseconds(0.421), "0.42 ms"),
        (theme.milliseconds(18.34), "18.3 ms"),
        (theme.milliseconds(1240), "1.24 s"),
        (theme.times(1.617), "1.62×"),
        (theme.rate(141.6), "142"),
        (theme.rate(9.84), "9.8"),
        (theme.percent(0.159), "16 %"),
        (theme.percent(0.001), "<1 %"),
    ],
)
def test_numbers_are_written_with_their_units(shown, wanted):
    assert shown == wanted
