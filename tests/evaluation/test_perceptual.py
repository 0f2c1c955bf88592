"""The table of perceptual metrics, what it promises callers, and what it says without pyiqa."""

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from escsr.errors import (
    CheckpointError,
    ConfigurationError,
    ImageReadError,
    ImageValueError,
    MissingExtraError,
)
from escsr.evaluation import metrics
from escsr.evaluation.metrics import (
    METRICS,
    ImageMetric,
    MetricName,
    SetMetric,
    fid,
    load_column,
    load_metric,
)
from escsr.evaluation.niqe import load_niqe_parameters, niqe
from escsr.evaluation.protocol import to_pixels
from escsr.images.writer import write_image

PYIQA_NAMES: list[MetricName] = [name for name, kind in METRICS.items() if kind.library == "pyiqa"]

needs_pyiqa = pytest.mark.skipif(find_spec("pyiqa") is None, reason="pyiqa is not installed")


def textured(seed: int, side: int = 192) -> npt.NDArray[np.float32]:
    """Smooth noise, every value k/255."""
    noise = np.random.default_rng(seed).normal(size=(1, 3, side, side)).cumsum(axis=3)
    return (noise * 5 % 256).astype(np.uint8).astype(np.float32) / 255


def test_the_table_names_every_metric_and_no_other() -> None:
    """The names for type checkers are those of the table."""
    assert set(METRICS) == set(get_args(MetricName))


def test_niqe_needs_no_reference_and_low_is_good() -> None:
    """It looks at the result alone, and gives what ``niqe`` gives."""
    metric = load_metric("NIQE ")
    assert (metric.name, metric.needs_reference, metric.higher_is_better) == ("niqe", False, False)
    image = textured(0)
    assert metric(image) == metric(image, textured(1)) == niqe(image, load_niqe_parameters())


def test_niqe_with_our_parameters_says_that_it_is_not_comparable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the report's note and as a warning that names the way out."""
    metric = load_metric("niqe")
    assert "195 photographs" in metric.note
    assert "cannot be compared with published ones" in metric.note
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "--niqe-parameters" in record.getMessage()


def test_niqe_with_the_parameters_of_a_file_names_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And its hash; the value follows the file."""
    ours = load_niqe_parameters()
    mean, covariance = ours.mean + 1, ours.covariance
    np.savez(tmp_path / "theirs.npz", mu_prisparam=mean, cov_prisparam=covariance)
    metric = load_metric("niqe", niqe_parameters=tmp_path / "theirs.npz")
    assert "theirs.npz (sha256 " in metric.note
    assert not caplog.records
    assert metric(textured(0)) != niqe(textured(0), ours)


def test_a_metric_is_a_column_of_a_table_and_crops_no_border() -> None:
    """As pyiqa judges files."""
    metric = load_metric("niqe")
    column = metric.column()
    assert (column.key, column.title, column.higher_is_better) == ("niqe", "NIQE", False)
    assert column.note == metric.note
    image = textured(0)
    assert column.measure(image, image, 4) == metric(image)


def test_a_metric_of_pairs_refuses_a_result_alone_or_a_truth_of_another_size() -> None:
    """With both shapes."""
    metric = ImageMetric(name="lpips", note="", measure=lambda sr, hr: 0.0)
    image = textured(0)
    assert metric(image, image) == 0.0
    with pytest.raises(ImageValueError, match="none came"):
        metric(image)
    with pytest.raises(ImageValueError, match="96, 96"):
        metric(image, textured(0, side=96))


def test_an_unknown_metric_lists_the_known_ones() -> None:
    """All of them."""
    with pytest.raises(ConfigurationError, match="niqe, lpips, dists, maniqa, musiq, clipiqa, fid"):
        load_metric("nique")


def test_fid_is_not_a_metric_of_single_images() -> None:
    """The message says what to call."""
    with pytest.raises(ConfigurationError, match=r"fid\(folder_a, folder_b\)"):
        load_metric("fid")


def test_parameters_of_niqe_for_another_metric_are_refused(tmp_path: Path) -> None:
    """They would be ignored."""
    with pytest.raises(ConfigurationError, match="niqe only"):
        load_metric("lpips", niqe_parameters=tmp_path / "parameters.npz")


def two_folders(parent: Path) -> tuple[Path, Path]:
    """Two folders of two pictures each."""
    folders = parent / "a", parent / "b"
    for position, folder in enumerate(folders):
        folder.mkdir()
        for number in range(2):
            pixels = to_pixels(textured(2 * position + number, side=96))
            write_image(folder / f"{number}.png", pixels)
    return folders


@pytest.mark.parametrize("name", PYIQA_NAMES)
def test_without_pyiqa_the_extra_and_its_licence_are_named(
    name: MetricName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody installs it."""
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(MissingExtraError, match=r"escsr\[metrics\]'.*non-commercial") as caught:
        if name == "fid":
            fid(*two_folders(tmp_path))
        else:
            load_metric(name)
    assert name in str(caught.value)


def test_fid_of_few_images_warns_of_its_bias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two images are no distribution."""
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(MissingExtraError):
        fid(*two_folders(tmp_path))
    assert "FID of 2 images is biased" in caplog.text


def test_fid_needs_two_images_in_each_folder(tmp_path: Path) -> None:
    """The folder is named; it is not found out after a download."""
    full, _ = two_folders(tmp_path)
    (tmp_path / "empty").mkdir()
    for other in ("empty", "missing"):
        with pytest.raises(ImageReadError, match=other):
            fid(full, tmp_path / other)


@needs_pyiqa
def test_what_the_table_says_is_what_pyiqa_says() -> None:
    """Direction and need of a reference."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS  # pyright: ignore[reportMissingImports]

    for name in PYIQA_NAMES:
        kind = METRICS[name]
        assert kind.higher_is_better != DEFAULT_CONFIGS[name].get("lower_better", False), name
        assert (kind.judges == "pair") == (DEFAULT_CONFIGS[name]["metric_mode"] == "FR"), name


@needs_pyiqa
def test_weights_that_cannot_be_downloaded_are_told_of_with_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The licence is named before, and once; nothing is printed to standard output."""
    metrics._name_the_licence_once.cache_clear()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    for _ in range(2):
        with pytest.raises(CheckpointError, match=str(tmp_path)):
            load_metric("lpips")
    (record,) = caplog.records
    assert "non-commercial" in record.getMessage()


@needs_pyiqa
def test_lpips_runs_with_weights_from_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random ones in place of the downloaded: 0 from itself, more from another image."""
    torch, torchvision = map(pytest.importorskip, ("torch", "torchvision"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    alexnet = torchvision.models.alexnet(weights=None).state_dict()
    torch.save(alexnet, tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    layers = {
        f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1)
        for i, c in enumerate((64, 192, 384, 256, 256))
    }
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path / "hub"))
    torch.save(layers, tmp_path / "hub" / "LPIPS_v0.1_alex-df73285e.pth")
    metric = load_metric("lpips")
    assert "pyiqa" in metric.note
    assert metric(textured(0), textured(0)) == pytest.approx(0, abs=1e-6)
    assert metric(textured(0), textured(1)) > 0.01


class LowRank:
    """In place of SciPy's linear algebra: 2048x2048 of a few images takes it a minute a time."""

    @staticmethod
    def sqrtm(
        matrix: npt.NDArray[np.float64], *, disp: bool
    ) -> tuple[npt.NDArray[np.complex128], float]:
        """The square root of a matrix of rank 4 or less, exact, within the space of its columns."""
        from scipy.linalg import sqrtm  # pyright: ignore[reportMissingImports]  # with pyiqa

        random = np.random.default_rng(0).normal(size=(len(matrix), 4))
        basis, _ = np.linalg.qr(matrix @ random)
        return basis @ sqrtm(basis.T @ matrix @ basis) @ basis.T, 0.0


@needs_pyiqa
@pytest.mark.slow
def test_fid_runs_as_the_column_of_a_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a random Inception: 0 from itself, more from other images."""
    torch, _ = map(pytest.importorskip, ("torch", "torchvision"))
    monkeypatch.setattr("pyiqa.archs.inception.load_pretrained_network", lambda *_: None)
    monkeypatch.setattr("pyiqa.archs.fid_arch.linalg", LowRank)
    torch.manual_seed(0)
    column = load_column("fid")
    assert isinstance(column, SetMetric)
    assert "pyiqa" in column.note
    assert "2048 images" in column.note
    one, other = two_folders(tmp_path)
    distance = column.measure(one, other)
    assert distance > 0
    assert column.measure(one, one) == pytest.approx(0, abs=distance / 1000)
