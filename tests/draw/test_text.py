"""Labels in other scripts than English are drawn, or it is said that they cannot be."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from stream_cam.draw import text as lettering
from stream_cam.draw.text import shorten, text_mask

BOX = "\U0010ffff"
"""No font has it."""


@pytest.mark.parametrize("text", ["pentagon", "Käse", "niño", "łódź", "кот", "γάτα", "kedi ş", "×"])
def test_letters_are_drawn_and_no_boxes(text: str, caplog: pytest.LogCaptureFixture) -> None:
    masks = [text_mask(letter, 24) for letter in text if letter != " "]
    assert all(mask.max() > 200 for mask in masks)
    shapes = {letter: text_mask(letter, 24).tobytes() for letter in set(text)}
    assert len(set(shapes.values())) == len(shapes), "two letters look alike, as boxes do"
    assert not caplog.records


def test_english_labels_look_as_ever() -> None:
    """Pillow's own font, whatever another label of the run needs."""
    before = text_mask("star", 26)
    text_mask("étoile", 26)
    np.testing.assert_array_equal(text_mask("star", 26), before)
    assert lettering._best_font("arst")[0] == ""


def test_a_letter_and_its_accent_are_one() -> None:
    np.testing.assert_array_equal(text_mask("e\u0301", 24), text_mask("é", 24))


def test_letters_that_no_font_has_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    lettering._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for size in (20, 21, 22):
            assert text_mask(f"a{BOX}", size).max() > 200
    (record,) = caplog.records
    assert BOX in record.getMessage()
    assert "install one that has it" in record.getMessage()


@pytest.mark.parametrize("text", ["American Staffordshire terrier", "Käsekuchen mit Äpfeln"])
def test_shortened_text_fits(text: str) -> None:
    short = shorten(text, 24, 120)
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    assert text_mask(short, 24).shape[1] <= 120
    assert shorten(text, 24, 10_000) == text
    assert shorten(text, 24, 1) == ""
