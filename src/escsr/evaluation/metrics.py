"""The metrics of the field's tables, each one column: PSNR, SSIM, NIQE, and pyiqa's."""

import contextlib
import hashlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias, cast, get_args

from escsr.engines.engine import Floats
from escsr.errors import (
    CheckpointError,
    ConfigurationError,
    DeviceMemoryError,
    ImageReadError,
    ImageValueError,
    MissingExtraError,
)
from escsr.evaluation.niqe import load_niqe_parameters, niqe
from escsr.images.files import READABLE_SUFFIXES
from escsr.images.metrics import psnr_db, psnr_y_db, ssim, ssim_y

Measure = Callable[[Floats, Floats, int], float]
"""(result, truth, border in pixels) -> value. Both images are (1, 3, H, W) float32, and every value
is k/255. A metric that needs no truth leaves it aside."""


MeasureSet = Callable[[Path, Path], float]
"""(folder of results, folder of truths) -> value. Both hold PNGs of the same names, except those of
images for which there is no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A figure of a table, and how it is shown."""

    key: str
    """Its name in CSV and JSON, with the unit."""
    title: str
    """Its name in a table."""
    decimals: int
    """Shown in a table; CSV and JSON have all digits."""
    higher_is_better: bool
    note: str = ""
    """What a report must not leave out: which parameters, which licence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric(Column):
    """One figure per image; tables have the mean."""

    measure: Measure
    runs_in_thread: bool = False
    """Whether it may run beside others and beside the next network, in a thread of its own. Ours
    may; what loads a network of its own takes its turn, with all threads of PyTorch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetMetric(Column):
    """One figure of all images of a test set together."""

    measure: MeasureSet
    least_images: int = 2


def _of(metric: Callable[..., Any], sr: Floats, hr: Floats, border: int) -> float:
    return float(metric(sr, hr, border_pixels=border)[0])


PSNR_Y = Metric(
    key="psnr_y_db",
    title="PSNR-Y",
    decimals=3,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(psnr_y_db, sr, hr, border),
    runs_in_thread=True,
)
SSIM_Y = Metric(
    key="ssim_y",
    title="SSIM-Y",
    decimals=4,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(ssim_y, sr, hr, border),
    runs_in_thread=True,
)
PSNR_RGB = Metric(
    key="psnr_rgb_db",
    title="PSNR-RGB",
    decimals=3,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(psnr_db, sr, hr, border),
    runs_in_thread=True,
)
SSIM_RGB = Metric(
    key="ssim_rgb",
    title="SSIM-RGB",
    decimals=4,
    higher_is_better=True,
    measure=lambda sr, hr, border: _of(ssim, sr, hr, border),
    runs_in_thread=True,
)

LUMA_METRICS = (PSNR_Y, SSIM_Y)
"""What papers publish."""

FIDELITY_METRICS = (*LUMA_METRICS, PSNR_RGB, SSIM_RGB)
"""What ``escsr evaluate`` shows unasked."""


logger = logging.getLogger("escsr")

MetricName: TypeAlias = Literal["niqe", "lpips", "dists", "maniqa", "musiq", "clipiqa", "fid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricKind:
    """What is known of a metric before it is loaded."""

    title: str
    """As papers write it."""
    judges: Literal["image", "pair", "folders"]
    """One image alone; an image against the truth; or all of a folder against all of another."""
    higher_is_better: bool
    library: Literal["escsr", "pyiqa"]
    about: str
    """One sentence, for reports."""


METRICS: dict[MetricName, MetricKind] = {
    "niqe": MetricKind(
        title="NIQE",
        judges="image",
        higher_is_better=False,
        library="escsr",
        about="NIQE is the distance to the statistics of natural photographs",
    ),
    "lpips": MetricKind(
        title="LPIPS",
        judges="pair",
        higher_is_better=False,
        library="pyiqa",
        about="LPIPS is version 0.1 with AlexNet",
    ),
    "dists": MetricKind(
        title="DISTS",
        judges="pair",
        higher_is_better=False,
        library="pyiqa",
        about="DISTS is with VGG16",
    ),
    "maniqa": MetricKind(
        title="MANIQA",
        judges="image",
        higher_is_better=True,
        library="pyiqa",
        about="MANIQA was trained on KonIQ-10k",
    ),
    "musiq": MetricKind(
        title="MUSIQ",
        judges="image",
        higher_is_better=True,
        library="pyiqa",
        about="MUSIQ was trained on KonIQ-10k",
    ),
    "clipiqa": MetricKind(
        title="CLIPIQA",
        judges="image",
        higher_is_better=True,
        library="pyiqa",
        about="CLIPIQA is with CLIP's RN50",
    ),
    "fid": MetricKind(
        title="FID",
        judges="folders",
        higher_is_better=False,
        library="pyiqa",
        about="FID is with Inception v3 on images resized to 299x299 (clean-fid)",
    ),
}
"""Every metric that can be asked for by name."""

FID_FEATURES = 2048
"""With fewer images than features, FID's covariances are singular and its values too high."""

_BIAS_OF_FID = (
    f"it describes {FID_FEATURES} features by their covariance. Compare it only with values of as "
    "many images."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageMetric:
    """A metric that is ready to judge images."""

    name: MetricName
    note: str
    """One sentence for the report: which parameters or network, under which licence."""
    measure: Callable[[Floats, Floats | None], float]
    """(result, truth) -> value; the truth is None where the metric does not look at it."""

    @property
    def kind(self) -> MetricKind:
        """What is known of it without loading."""
        return METRICS[self.name]

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the truth."""
        return self.kind.judges == "pair"

    @property
    def higher_is_better(self) -> bool:
        """Which way its values are read."""
        return self.kind.higher_is_better

    def __call__(self, sr_image: Floats, hr_image: Floats | None = None) -> float:
        """Judge one image.

        Args:
            sr_image: (1, 3, H, W) in [0, 1], rounded to 8 bits where the protocol asks for it.
            hr_image: the truth, same shape; may be left out where ``needs_reference`` is false.
        Raises:
            ImageValueError, ImageSizeError: it cannot be judged; see ``niqe``.
        """
        if not self.needs_reference:
            return self.measure(sr_image, None)
        if hr_image is None or hr_image.shape != sr_image.shape:
            came = "none came" if hr_image is None else f"it has shape {hr_image.shape}"
            raise ImageValueError(
                f"{self.kind.title} compares with the truth, which must have the result's shape "
                f"{sr_image.shape}; {came}."
            )
        return self.measure(sr_image, hr_image)

    def column(self) -> Metric:
        """The metric as a column of a table; the border is not cropped."""
        return Metric(
            key=self.name,
            title=self.kind.title,
            decimals=4,
            higher_is_better=self.higher_is_better,
            measure=lambda sr_image, hr_image, _border_pixels: self(sr_image, hr_image),
            note=self.note,
            runs_in_thread=self.kind.library == "escsr",
        )


def load_column(
    name: str, *, device: str = "cpu", niqe_parameters: Path | None = None
) -> Metric | SetMetric:
    """Make any metric ready, as a column of a table.

    Args:
        name: one of ``METRICS``.
        device: where pyiqa's networks run.
        niqe_parameters: see ``load_metric``; other metrics take no notice.
    Raises:
        ConfigurationError, CheckpointError, MissingExtraError: see ``load_metric``.
    """
    metric_name = _checked_name(name)
    if METRICS[metric_name].judges == "folders":
        return load_fid(device=device)
    parameters = niqe_parameters if metric_name == "niqe" else None
    return load_metric(metric_name, device=device, niqe_parameters=parameters).column()


def load_metric(
    name: str, *, device: str = "cpu", niqe_parameters: Path | None = None
) -> ImageMetric:
    """Make a metric ready.

    Args:
        name: one of ``METRICS``, except ``fid``, for which there is ``load_fid``.
        device: where pyiqa's networks run; NIQE is computed on the CPU.
        niqe_parameters: what NIQE compares with, as for ``load_niqe_parameters``; None means ours,
            whose values cannot be compared with published ones.
    Raises:
        ConfigurationError: no such metric, or parameters of NIQE for another one.
        CheckpointError: a network or parameters are missing, and what to do.
        MissingExtraError: pyiqa or SciPy is needed.
    """
    metric_name = _checked_name(name)
    if METRICS[metric_name].judges == "folders":
        raise ConfigurationError(
            f"{name} judges folders, not single images; in escsr.evaluation.metrics, "
            "fid(folder_a, folder_b) compares two, and load_fid() is for comparisons."
        )
    if metric_name == "niqe":
        return _load_niqe(niqe_parameters)
    if niqe_parameters is not None:
        raise ConfigurationError(
            f"niqe_parameters came with the metric {name}; they are for niqe only. Leave them out."
        )
    network = PyiqaNetwork(metric_name, device=device)
    note = f"{METRICS[metric_name].about}, by {network.library}."
    return ImageMetric(name=metric_name, note=note, measure=network.judge)


def fid(folder_a: Path, folder_b: Path, *, device: str = "cpu") -> float:
    """Fréchet inception distance between the images of two folders; 0 is equal, low is good.

    Below a few thousand images a side it is biased upwards, by how much depends on their number:
    compare only values of as many images.

    Args:
        folder_a: images, in subfolders too, read by pyiqa (not AVIF).
        folder_b: the same; the order of the two does not matter.
        device: where the network runs.
    Raises:
        ImageReadError: not a folder, or fewer than two images in it.
        CheckpointError, MissingExtraError: see ``load_metric``.
    """
    fewest = min(_count_images(folder) for folder in (folder_a, folder_b))
    if fewest < FID_FEATURES:
        logger.warning("FID of %d images is biased: %s", fewest, _BIAS_OF_FID)
    return PyiqaNetwork("fid", device=device).compare_folders(folder_a, folder_b)


def load_fid(*, device: str = "cpu") -> SetMetric:
    """Make the Fréchet inception distance ready, as a column of a table.

    It takes a minute per contender and test set, most of it for the square root of a matrix on the
    CPU, however few images there are.

    Args:
        device: where the network runs.
    Raises:
        CheckpointError, MissingExtraError: see ``load_metric``.
    """
    network = PyiqaNetwork("fid", device=device)
    kind = METRICS["fid"]
    return SetMetric(
        key="fid",
        title=kind.title,
        decimals=2,
        higher_is_better=kind.higher_is_better,
        measure=network.compare_folders,
        note=f"{kind.about}, by {network.library}. Of fewer than {FID_FEATURES} images it is "
        f"biased: {_BIAS_OF_FID}",
    )


def _checked_name(name: str) -> MetricName:
    key = name.strip().lower()
    if key not in get_args(MetricName):
        raise ConfigurationError(f"There is no metric {name!r}; allowed are {', '.join(METRICS)}.")
    return cast(MetricName, key)


def _load_niqe(path: Path | None) -> ImageMetric:
    parameters = load_niqe_parameters(path)
    about = METRICS["niqe"].about
    if path is None:
        note = (
            f"{about}, with parameters fitted on {parameters.provenance['photographs']} "
            "photographs of our own: values cannot be compared with published ones."
        )
        logger.warning("%s Give the authors' file for that (--niqe-parameters).", note)
    else:
        digest = hashlib.sha256(path.expanduser().read_bytes()).hexdigest()[:12]
        note = f"{about}, with the parameters of {path.name} (sha256 {digest}…)."
    return ImageMetric(
        name="niqe", note=note, measure=lambda sr_image, _hr_image: niqe(sr_image, parameters)
    )


def _count_images(folder: Path) -> int:
    count = sum(path.suffix.lower() in READABLE_SUFFIXES for path in folder.rglob("*"))
    if count < 2:
        raise ImageReadError(
            f"{folder} holds {count} images; FID compares two folders of at least 2 each, and of "
            "thousands for a value that means something."
        )
    return count


class PyiqaNetwork:
    """A metric of pyiqa, loaded.

    Args:
        name: as pyiqa calls it.
        device: where the network runs.
    Raises:
        MissingExtraError: pyiqa, or what this metric needs beside it, is not installed.
        CheckpointError: its weights are not here and could not be downloaded.
    """

    def __init__(self, name: str, *, device: str) -> None:
        pyiqa = _import_pyiqa(name)
        import torch

        _name_the_licence_once()
        self.name = name
        self.device = torch.device(device)
        with (
            _standard_output_kept_clean(),
            _missing_weights_explained(name),
            _deprecations_left_to_pyiqa(),
        ):
            self._network = pyiqa.create_metric(name, device=self.device)

    @property
    def library(self) -> str:
        """Version and licence, for reports."""
        return f"pyiqa {metadata.version('pyiqa')} ({_licence_of_pyiqa()})"

    def judge(self, sr_image: Floats, hr_image: Floats | None) -> float:
        """Judge one image, (1, 3, H, W) in [0, 1], against the truth if there is one.

        Raises:
            ImageValueError: pyiqa refuses it.
            DeviceMemoryError: it does not fit.
        """
        import torch

        images = [sr_image] if hr_image is None else [sr_image, hr_image]
        height, width = sr_image.shape[2:]
        try:
            value = float(self._network(*(torch.from_numpy(i).to(self.device) for i in images)))
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{self.name} of {width}x{height} pixels does not fit into the memory of "
                f"{self.device}; use the device cpu."
            ) from error
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ImageValueError(
                f"pyiqa's {self.name} cannot judge an image of {width}x{height} pixels ({error}); "
                "leave it out, or leave out the metric."
            ) from error
        return value

    def compare_folders(self, folder_a: Path, folder_b: Path) -> float:
        """Compare all images of two folders.

        Raises:
            ImageReadError: pyiqa cannot read one of them.
            ImageValueError: there is no value, for want of images.
        """
        with _standard_output_kept_clean():
            try:
                value = self._network(str(folder_a), str(folder_b), verbose=False, num_workers=0)
            except OSError as error:
                raise ImageReadError(
                    f"pyiqa cannot read the images of {folder_a} and {folder_b} ({error}); remove "
                    "or convert what is damaged."
                ) from error
            except ValueError as error:
                raise ImageValueError(
                    f"pyiqa's {self.name} has no value for {folder_a} and {folder_b} ({error}); "
                    "give more images."
                ) from error
        return float(value)


def _import_pyiqa(name: str) -> ModuleType:
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]  # not among the tools of [dev]
    except ImportError as error:
        raise MissingExtraError(
            f"The metric {name} needs pyiqa ({error}): pip install 'escsr[metrics]'. Its licence "
            "permits non-commercial use only."
        ) from error
    return pyiqa


@cache
def _name_the_licence_once() -> None:
    logger.warning(
        "pyiqa %s may be used for non-commercial purposes only (%s); the networks that it "
        "downloads have licences of their own.",
        metadata.version("pyiqa"),
        _licence_of_pyiqa(),
    )


def _licence_of_pyiqa() -> str:
    # It has changed between versions, so the installed one is asked.
    about = metadata.metadata("pyiqa")
    keys = ("License-Expression", "License")
    return next((about[key] for key in keys if key in about), "its package names no licence")


@contextlib.contextmanager
def _standard_output_kept_clean() -> Iterator[None]:
    """Send what pyiqa prints to stderr: a program may be reading our results from stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _deprecations_left_to_pyiqa() -> Iterator[None]:
    """Without torchvision's warnings of how pyiqa calls it, of which a user can do nothing."""
    with warnings.catch_warnings():
        for parameter in ("The parameter 'pretrained'", "Arguments other than a weight enum"):
            warnings.filterwarnings("ignore", parameter, UserWarning)
        yield


@contextlib.contextmanager
def _missing_weights_explained(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"pyiqa's {name} needs a module that is not installed ({error}): "
            "pip install 'escsr[metrics]'"
        ) from error
    except (OSError, RuntimeError) as error:
        import torch

        raise CheckpointError(
            f"The weights of {name} could not be loaded or downloaded ({error}). Connect to the "
            "internet for its first use; or run it once on a machine that is connected, and copy "
            f"from there what is in {torch.hub.get_dir()} (TORCH_HOME sets another place) and, "
            'for maniqa, in ~/.cache/huggingface (HF_HOME). Where a line "Downloading" stands '
            "above, it names the file and its place."
        ) from error
