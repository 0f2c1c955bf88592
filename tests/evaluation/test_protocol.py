"""The field's protocol: where it finds its pictures."""

from pathlib import Path

import pytest

from escsr.errors import ImageReadError
from escsr.evaluation import find_test_pairs


def test_a_test_set_that_is_no_folder_of_images_is_an_error(tmp_path: Path) -> None:
    """Missing, a file, and empty: each is named."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("missing", "file", "empty"):
        with pytest.raises(ImageReadError, match=name):
            find_test_pairs(tmp_path / name, scale=2)
