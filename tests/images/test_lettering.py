"""Words as pixels."""

import numpy as np
import pytest

from escsr.images.lettering import render_text


def test_a_line_has_ink_and_the_height_that_was_asked_for() -> None:
    """Longer words are wider."""
    short, long = (
        render_text(text, height_pixels=24, max_width_pixels=500) for text in ("HR", "HR bicubic")
    )
    assert short.shape[0] == long.shape[0] == 24
    assert 0 < short.shape[1] < long.shape[1]
    assert short.max() > 200
    assert short.dtype == np.uint8


@pytest.mark.parametrize("text", ["x" * 300, "<b>&amp;</b> 5 < 6 & 7", "Ünïcödé 名前", "gjpqy|"])
def test_any_words_fit_into_the_width(text: str) -> None:
    """Made smaller, and nothing in them is taken for markup."""
    line = render_text(text, height_pixels=24, max_width_pixels=100)
    assert line.shape[0] == 24
    assert 0 < line.shape[1] <= 100


def test_no_words_need_no_width() -> None:
    """An empty line is empty."""
    assert render_text(" ", height_pixels=10, max_width_pixels=50).shape == (10, 0)
