"""Several networks on several test sets: what fails is named, and the rest is judged."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from escsr.engines.engine import Floats
from escsr.errors import ConfigurationError, ImageReadError, ImageWriteError, OutputExistsError
from escsr.evaluation.comparison import Comparison, Conditions, Entrants, compare, enter
from escsr.evaluation.contenders import Contender
from escsr.evaluation.crops import CROP_PIXELS, CropGallery, crop_picture
from escsr.evaluation.metrics import PSNR_Y, SSIM_Y
from escsr.evaluation.protocol import Enlarge
from escsr.evaluation.report import (
    as_csv,
    as_json,
    as_markdown,
    prepare_report_folder,
    report_as_dict,
    table_rows,
    write_report,
)
from escsr.images.files import read_image

from .pictures import write_waves

LUMA = Conditions(scale=2, metrics=(PSNR_Y, SSIM_Y))


def nearest(image: Floats, *, patch: float = 0.0) -> Floats:
    """Repeat each pixel, and add something within one square of the result."""
    larger = image.repeat(2, axis=-2).repeat(2, axis=-1)
    larger[..., 40:80, 120:160] += np.float32(patch)
    return larger


def failing(image: Floats) -> Floats:
    """As ``nearest``, or not at all on images wider than 40 pixels."""
    if image.shape[-1] > 40:
        raise IndexError("too wide\nfor me")
    return nearest(image)


def contender(label: str, enlarge: Enlarge) -> Contender:
    """A row of a table."""
    return Contender(label=label, source=label, network=enlarge, scale=2, architecture="test")


def entrants_of(folder: Path, *contenders: Contender) -> Entrants:
    """These contenders on one folder of images."""
    return replace(enter(["bicubic"], [folder], scale=2), contenders=contenders)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A test set of a small, a wide and a broken image."""
    folder = tmp_path / "Mixed"
    write_waves(folder / "a-small.png", 48, 60)
    write_waves(folder / "b-wide.png", 120, 200)
    (folder / "c-broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder


@pytest.fixture
def comparison(pictures: Path) -> Comparison:
    """One sound and one failing network on it."""
    rows = (contender("nearest", nearest), contender("failing", failing))
    return compare(entrants_of(pictures, *rows), LUMA)


def test_a_failing_network_and_a_broken_image_stop_nothing(comparison: Comparison) -> None:
    """Each is named once, with its reason in one line."""
    judged = [(score.model, score.image) for score in comparison.scores]
    assert judged == [("nearest", "a-small"), ("failing", "a-small"), ("nearest", "b-wide")]
    network, image = comparison.failures
    assert str(network) == "failing, Mixed, b-wide: IndexError: too wide"
    assert (image.model, image.image) == (None, "c-broken")
    assert "c-broken.png" in image.error


def test_means_are_of_the_images_that_could_be_judged(comparison: Comparison) -> None:
    """And only means of equally many images are compared for the best."""
    values = [s.values["psnr_y_db"] for s in comparison.scores if s.model == "nearest"]
    assert comparison.figure("nearest", "Mixed", PSNR_Y) == pytest.approx(sum(values) / 2)
    assert comparison.figure("nobody", "Mixed", PSNR_Y) is None
    rows = table_rows(comparison, comparison.test_sets[0])
    assert not any(figure.is_best for row in rows for figure in row.figures)


def test_progress_counts_every_result_failed_or_not(pictures: Path) -> None:
    """So that a bar reaches its end."""
    entrants = entrants_of(pictures, contender("a", nearest), contender("b", failing))
    told: list[tuple[str, str, str]] = []
    compare(entrants, LUMA, on_result=lambda *place: told.append(place))
    assert len(told) == entrants.num_results(LUMA) == 6
    assert told[0] == ("a", "Mixed", "a-small")


def test_figures_do_not_depend_on_how_many_images_wait_for_them(tmp_path: Path) -> None:
    """Networks on another device run ahead of the metrics, by two images at most.

    What runs here takes no notice of the device.
    """
    for number in range(5):
        write_waves(tmp_path / f"{number}.png", 30 + 2 * number, 40, shift=number)
    (tmp_path / "2-broken.png").write_bytes(b"no image")
    entrants = entrants_of(tmp_path, contender("nearest", nearest), contender("same", nearest))
    here = compare(entrants, LUMA)
    ahead = compare(entrants, replace(LUMA, device="cuda"))
    assert [score.image for score in here.scores] == [n for n in "01234" for _ in range(2)]
    assert ahead.scores == here.scores
    assert ahead.failures == here.failures


def test_comparing_leaves_the_number_of_threads_as_it_was(pictures: Path) -> None:
    """Of this thread, and of threads that start later."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    compare(enter(["bicubic"], [pictures], scale=2), LUMA)
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


def test_broken_models_and_sets_are_left_out_and_named(pictures: Path) -> None:
    """The scale is that of the first network that has one, wherever bicubic stands."""
    folders = [pictures, pictures / "nowhere", pictures]
    entrants = enter(["bicubic", "esc-tny", "esc-tiny-x3"], folders, scale=None)
    assert [row.label for row in entrants.contenders] == ["bicubic", "esc-tiny"]
    assert [row.scale for row in entrants.contenders] == [3, 3]
    assert [test_set.name for test_set in entrants.test_sets] == ["Mixed"]
    assert [(f.model, f.test_set) for f in entrants.failures] == [
        ("esc-tny", None),
        (None, "nowhere"),
    ]


def test_with_nothing_left_to_compare_the_first_reason_is_raised(pictures: Path) -> None:
    """Models before test sets."""
    with pytest.raises(ConfigurationError, match="esc-tny"):
        enter(["bicubic", "esc-tny"], [pictures], scale=None)
    with pytest.raises(ImageReadError, match="nowhere"):
        enter(["bicubic"], [pictures / "nowhere"], scale=2)
    with pytest.raises(ConfigurationError, match=r"gone.*away"):
        enter(["bicubic"], [pictures / "gone", pictures / "away"], scale=2)


def test_json_tells_everything_and_is_valid(comparison: Comparison) -> None:
    """Versions, conditions, hashes, each figure; infinity as text, since JSON has none."""
    perfect = replace(comparison.scores[0], values={"psnr_y_db": float("inf"), "ssim_y": 1.0})
    comparison = replace(comparison, scores=[perfect, *comparison.scores[1:]])
    report = json.loads(as_json(report_as_dict(comparison)))
    assert report["torch"] == getattr(sys.modules.get("torch"), "__version__", None)
    assert (report["scale"], report["padding"], report["precision"]) == (2, "window", "float32")
    assert report["images"][0]["psnr_y_db"] == "Infinity"
    assert [entry["means"]["Mixed"]["images"] for entry in report["models"]] == [2, 1]
    (test_set,) = report["test_sets"]
    assert (test_set["lr_from_files"], test_set["lr_made"], test_set["lr_sha256"]) == (0, 3, None)
    assert len(test_set["hr_sha256"]) == 64
    assert [entry["image"] for entry in report["failures"]] == ["b-wide", "c-broken"]


def test_csv_has_a_row_per_result_with_all_digits(comparison: Comparison) -> None:
    """What failed has its reason instead of figures."""
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert len(rows) == 5
    assert float(rows[0]["psnr_y_db"]) == comparison.scores[0].values["psnr_y_db"]
    assert (rows[3]["model"], rows[3]["psnr_y_db"]) == ("failing", "")
    assert rows[3]["error"] == "IndexError: too wide"


def test_markdown_marks_the_best_and_incomplete_means(comparison: Comparison) -> None:
    """A name cannot break a table."""
    odd = replace(comparison.contenders[0], label="a|b", source="a|b")
    scores = [replace(s, model="a|b") for s in comparison.scores if s.model == "nearest"]
    worse = [replace(s, values={"psnr_y_db": 1.0, "ssim_y": 0.1}, model="worse") for s in scores]
    both = replace(
        comparison,
        contenders=[odd, contender("worse", nearest)],
        scores=[*scores, *worse],
    )
    page = as_markdown(both, report_as_dict(both))
    assert "| a\\|b (2 of 3 images) | **" in page
    assert "| worse (2 of 3 images) | 1.000 | 0.1000 |" in page
    assert "3 made by MATLAB's bicubic rule" in page
    assert "c-broken" in page


def test_crops_are_cut_where_networks_differ_most(pictures: Path) -> None:
    """The square that one network brightens is found, in the one image that is large enough."""
    gallery = CropGallery(2, scale=2)
    rows = (contender("plain", nearest), contender("patched", partial(nearest, patch=0.3)))
    compare(entrants_of(pictures, *rows), LUMA, gallery=gallery)
    crop = gallery.crops[0]
    assert crop.image == "b-wide"
    assert crop.left <= 120 <= 160 <= crop.left + CROP_PIXELS
    assert [panel.label for panel in crop.panels] == ["HR", "bicubic", "plain", "patched"]
    assert crop.panels[0].psnr_y_db is None
    plain_db, patched_db = (panel.psnr_y_db or 0.0 for panel in crop.panels[2:])
    assert plain_db > patched_db > 0
    assert [kept.difference for kept in gallery.crops] == sorted(
        (kept.difference for kept in gallery.crops), reverse=True
    )


def test_one_network_alone_is_compared_with_bicubic(pictures: Path) -> None:
    """Bicubic alone has nothing to be compared with, and no crops may be wanted."""
    for rows, count, found in (
        (["nearest"], 5, 2),
        (["nearest"], 1, 1),
        (["nearest"], 0, 0),
        (["bicubic"], 5, 0),
    ):
        gallery = CropGallery(count, scale=2)
        networks = [contender(label, nearest) for label in rows]
        compare(entrants_of(pictures, *networks), LUMA, gallery=gallery)
        assert len(gallery.crops) == found


def test_a_crop_picture_shows_its_panels_enlarged_by_whole_pixels(pictures: Path) -> None:
    """Under their names; every pixel of HR is found again."""
    gallery = CropGallery(1, scale=2)
    compare(entrants_of(pictures, contender("nearest", nearest)), LUMA, gallery=gallery)
    (crop,) = gallery.crops
    picture = crop_picture(crop)
    side = 3 * CROP_PIXELS
    assert picture.shape == (24 * 3 + side + 8, 8 + 3 * (side + 8), 3)
    hr_panel = picture[72 : 72 + side, 8 : 8 + side]
    assert np.array_equal(hr_panel[1::3, 1::3], crop.panels[0].pixels)
    words_of_hr = picture[24:48, 8 : 8 + side]
    assert words_of_hr.min() < 100


def report_into(folder: Path, comparison: Comparison, gallery: CropGallery | None) -> Sequence[str]:
    """Prepare and write; the names of all files then."""
    prepare_report_folder(folder)
    write_report(folder, comparison, gallery.crops if gallery else ())
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_of_results_is_replaced_whole(
    tmp_path: Path, pictures: Path, comparison: Comparison
) -> None:
    """Pictures of earlier results go; a file that the user put there stays."""
    gallery = CropGallery(2, scale=2)
    compare(entrants_of(pictures, contender("nearest", nearest)), LUMA, gallery=gallery)
    out = tmp_path / "out" / "deep"
    texts = ["results.csv", "results.json", "results.md"]
    first = report_into(out, comparison, gallery)
    assert {name.partition("Mixed-")[2] for name in first[:2]} == {"a-small.png", "b-wide.png"}
    assert first[2:] == texts
    read_image(out / first[0])
    (out / "crops" / "mine.txt").touch()
    assert report_into(out, comparison, None) == ["crops/mine.txt", *texts]


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON", '{"format": "other"}'])
def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path, content: str) -> None:
    """Not even if it has a results.json; unless it is allowed."""
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(OutputExistsError, match="not empty"):
        prepare_report_folder(tmp_path)
    prepare_report_folder(tmp_path, overwrite=True)
    assert (tmp_path / "results.json").read_text() == content


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ImageWriteError, match="cannot be written"):
            prepare_report_folder(folder)
