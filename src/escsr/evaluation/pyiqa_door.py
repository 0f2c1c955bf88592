"""The one door to pyiqa: its networks, its licence, and what to do where they are missing."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from escsr.engines.engine import Floats
from escsr.errors import (
    CheckpointError,
    DeviceMemoryError,
    ImageReadError,
    ImageValueError,
    MissingExtraError,
)

logger = logging.getLogger("escsr")


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
