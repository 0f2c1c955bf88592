"""The Upscaler: the one class most users need."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from escsr.errors import ImageValueError
from escsr.images.files import DEFAULT_MAX_PIXELS, probe_image, read_image
from escsr.inference.array_job import enlarge_pixels, enlarge_tensor
from escsr.inference.backends import Backend, BackendChoice
from escsr.inference.borders import Edges, require_edges
from escsr.inference.devices import Precision, choose_device, require_precision
from escsr.inference.door import (
    array_like,
    is_picture,
    picture_like,
    pixels_of_array,
    pixels_of_picture,
)
from escsr.inference.engine import ImagePadding
from escsr.inference.enlarger import Enlarger, WorkPlan, WorkSettings
from escsr.inference.exact.choice import require_exact
from escsr.inference.file_job import FileJob, UpscaleReport
from escsr.inference.geometry import SizeOptions, SizeWish, require_factor, require_factor_of
from escsr.inference.memory import TileChoice, require_tiling
from escsr.inference.models import ModelShelf, ModelSource
from escsr.inference.pipeline import FileWatch, run_files
from escsr.inference.planes import AlphaMeaning, Pixels, require_alpha, shape_of_file
from escsr.inference.progress_meter import OnProgress
from escsr.model.attention.backends import FoldedBackend
from escsr.model.attention.flash_bias import RankRule
from escsr.temporary_files import remove_abandoned

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


class Upscaler:
    """Makes images larger; keep one and use it for many, from as many threads as you like.

    Any factor above 1 up to 16 works: ESC+LTE makes any size, of other models the one nearest above
    runs and the result is shrunk with antialiasing; beyond the largest, several run one after
    another. A restorer (x1) keeps the size. Large images are cut into tiles that are blended.

    It can be pickled and copied, for other processes too: with its weights, or, of a bundled model,
    by name. A forked process can use it for images in memory; for files, only if the process that
    it was forked from had touched none yet (else an ImageError says so): use "spawn" there.

    Example::

        upscaler = escsr.Upscaler(scale=4)
        larger = upscaler(PIL.Image.open("photo.jpg"))
        upscaler.upscale_file("photo.jpg", "photo-x4.jpg")

    Args:
        model: a name in the box (``escsr models`` lists them), the path of a checkpoint, or a
            network with a ``scale``, which is copied. The last two have only their own factor.
        scale: factor where a call says none; None means x4, or the model's own (1: a restorer's).
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: "auto" is float16 on CUDA for 8-bit images, else float32; or "float32",
            "bfloat16", "float16". A tile that comes out as NaN runs again in float32.
        tile: side of a tile in pixels of the source, rounded up to attention windows; "auto"
            runs small images whole and tiles large ones; "whole" or None never tiles. When memory
            runs out, tiles are halved.
        overlap_pixels: least overlap of tiles, rounded up to windows; unless given, a window
            and at least 32 pixels.
        memory_limit_bytes: tiles are chosen so that the estimate of what is held at once, beside
            the program itself, stays below.
        exact: whether an image that does not fit in one piece gives what it would give in one: it
            runs layer by layer, its features in memory or in temporary files (in TMPDIR, else
            /var/tmp), which takes longer than tiles (``docs/tiles.md``); otherwise it is cut into
            tiles, which differ a little.
        backend: how a network is run: "auto" (the fastest that needs no compiling), "native"
            (kernels of our own, on a CPU), "eager" (PyTorch's operations) or "reference", which
            computes as the paper writes it down and is slow.
        attention_backend: how attention is computed: "auto" (what is fastest here; the log says
            which and why), "sdpa", "flex", "triton" (CUDA), "chunked", "naive", all exact, or
            "flashbias", which is not; None is the network's own.
        flash_bias: the rank of "flashbias", or a bound on its error.
        keep_colours: give the result the low frequencies of the source, so that a network's own
            tint or change of brightness does not show, and flat regions their very value.
        alpha: "opacity", or "data" for a second or fourth channel of another meaning: it and the
            colours are then enlarged each by itself, and colours kept where it is 0. A TIFF
            channel that is declared as no alpha is data always.
        edges: what lies beyond the borders: "auto", or "wrap" for a texture that repeats.
        padding: "window" extends the image by reflection to whole attention windows and crops the
            result, as the reference's tester does.
    Raises:
        UnknownModelError, CheckpointError: the model.
        ConfigurationError: any other argument.
    """

    def __init__(
        self,
        model: ModelSource = "esc-tiny",
        *,
        scale: float | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        tile: TileChoice = "auto",
        overlap_pixels: int | None = None,
        memory_limit_bytes: int | None = None,
        exact: bool = False,
        backend: BackendChoice = "auto",
        attention_backend: FoldedBackend | None = "auto",
        flash_bias: RankRule | None = None,
        keep_colours: bool = True,
        alpha: AlphaMeaning = "opacity",
        edges: Edges = "auto",
        padding: ImagePadding = "none",
    ) -> None:
        if scale is not None:
            require_factor(scale)
        require_precision(precision)
        require_tiling(tile, overlap_pixels, memory_limit_bytes)
        require_exact(exact)
        require_alpha(alpha)
        require_edges(edges)
        shelf = ModelShelf(
            model,
            device=choose_device(device),
            backend=backend,
            attention_backend=attention_backend,
            flash_bias=flash_bias,
            keep_colours=keep_colours,
            padding=padding,
        )
        if scale is not None:
            require_factor_of(scale, shelf.scales, makes_any_size=shelf.makes_any_size)
        settings = WorkSettings(
            precision=precision,
            tile=tile,
            overlap_pixels=overlap_pixels,
            memory_limit_bytes=memory_limit_bytes,
            exact=exact,
            alpha=alpha,
            edges=edges,
        )
        self._enlarger = Enlarger(shelf, settings, default_scale=scale)

    @property
    def model_name(self) -> str:
        """Name of the model in the box, of the checkpoint file, or of the network's class."""
        return self._enlarger.shelf.name

    @property
    def scales(self) -> tuple[int, ...]:
        """Factors of the networks at hand; 1 is a restorer's."""
        return self._enlarger.shelf.scales

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self._enlarger.shelf.device

    @property
    def backend(self) -> Backend:
        """How they run: what was asked for, or what "auto" took."""
        return self._enlarger.shelf.backend

    @overload
    def __call__(self, image: str | os.PathLike[str], **size: Unpack[SizeOptions]) -> Pixels: ...
    @overload
    def __call__(self, image: "Picture", **size: Unpack[SizeOptions]) -> "Picture": ...
    @overload
    def __call__(
        self, image: npt.NDArray[Any], **size: Unpack[SizeOptions]
    ) -> npt.NDArray[Any]: ...
    @overload
    def __call__(self, image: Tensor, **size: Unpack[SizeOptions]) -> Tensor: ...
    def __call__(
        self,
        image: "str | os.PathLike[str] | Picture | npt.NDArray[Any] | Tensor",
        *,
        scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        longest: int | None = None,
    ) -> "Pixels | Picture | npt.NDArray[Any] | Tensor":
        """Enlarge one image (a tensor: a batch) and return the same kind of thing.

        Args:
            image: one of

                - a path: the pixels are read and returned as an array (H, W, C) uint8 or uint16,
                  C = 1 to 4; use ``upscale_file`` to go from file to file with metadata;
                - a PIL image of mode L, LA, RGB, RGBA or I;16 (P and 1 become RGB(A) and L), of
                  one frame or page (of MPO and PSD, the main picture);
                - an array (H, W) or (H, W, 1 to 4), uint8, uint16, or float32/float64 in [0, 1];
                - a tensor (B, 3, H, W), floating point in [0, 1], on any device.
            scale: factor, above 1 and at most 16; 1 of a restorer.
            width: of the result, instead of a factor; alone, it keeps the shape.
            height: likewise.
            longest: longer side of the result, instead of a factor.
        Returns:
            The larger image: same kind, mode, number of axes, dtype and device; values clamped to
            the range of the kind.
        Raises:
            ConfigurationError: the factor or size cannot be.
            ImageSizeError: the size is not larger than the image, or absurdly so.
            ImageValueError: wrong dtype, shape, mode or range, or NaN.
            ImageReadError: the path.
            DeviceMemoryError: not even the smallest tile fits.
        """
        wish = SizeWish(scale=scale, width=width, height=height, longest=longest)
        if isinstance(image, (str, os.PathLike)):
            source = read_image(Path(image))
            return enlarge_pixels(self._enlarger, source.pixels, wish, extra=source.extra)
        if isinstance(image, np.ndarray):
            return array_like(enlarge_pixels(self._enlarger, pixels_of_array(image), wish), image)
        if isinstance(image, Tensor):
            return enlarge_tensor(self._enlarger, image, wish)
        if is_picture(image):
            return picture_like(
                enlarge_pixels(self._enlarger, pixels_of_picture(image), wish), image
            )
        raise ImageValueError(
            f"The image is a {type(image).__name__}; allowed are a path, a PIL image, a numpy "
            "array and a torch tensor."
        )

    def upscale_file(
        self,
        input: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        longest: int | None = None,
        overwrite: bool = False,
        quality: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        on_progress: OnProgress | None = None,
    ) -> UpscaleReport:
        """Enlarge a file into another, with its profile, EXIF and other metadata.

        Rows are written as they become final, so memory holds the source and a band of the
        result, not the result. The output appears whole or not at all.

        Args:
            input: a JPEG, PNG, WebP, TIFF, AVIF or GIF file.
            output: another file; its suffix chooses the format.
            scale: factor, as for a call.
            width: of the result, as for a call.
            height: of the result, as for a call.
            longest: side of the result, as for a call.
            overwrite: whether an existing output may be replaced; the input never is.
            quality: 1 to 100 for JPEG, WebP and AVIF.
            max_pixels: larger inputs are refused.
            on_progress: called with the fraction done, from this thread.
        Returns:
            What was done.
        Raises:
            ImageReadError, ImageSizeError, ConfigurationError: the input, or the size asked for.
            ImageFormatError, ImageWriteError, OutputExistsError: the output; found out before the
                work, unless the disk fills up.
            DeviceMemoryError: not even the smallest tile fits.
        """
        job = FileJob(
            input=Path(input),
            output=Path(output),
            wish=SizeWish(scale=scale, width=width, height=height, longest=longest),
            overwrite=overwrite,
            quality=quality,
            max_pixels=max_pixels,
        )
        remove_abandoned(job.output.parent)
        return job.run(self._enlarger, on_progress)

    def upscale_files(self, jobs: Sequence[FileJob], watch: FileWatch) -> None:
        """Enlarge many files, reading and writing while the network works: ``run_files``."""
        run_files(self._enlarger, jobs, watch)

    def output_size(
        self, input_size: tuple[int, int], **size: Unpack[SizeOptions]
    ) -> tuple[int, int]:
        """Size of the result for a source of one size, (width, height); does no work.

        Size and errors as for a call.
        """
        return self._enlarger.plan_size(*input_size, SizeWish(**size)).target_size

    def plan_file(
        self,
        input: str | os.PathLike[str],
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        **size: Unpack[SizeOptions],
    ) -> WorkPlan:
        """Tiles and memory that ``upscale_file`` would plan with; reads no more than the header.

        A picture whose borders turn out flat is extended, and takes a little more.

        Size and errors as for ``upscale_file``.
        """
        header = probe_image(Path(input), max_pixels=max_pixels)
        enlargement = self._enlarger.plan_size(header.width, header.height, SizeWish(**size))
        shape = shape_of_file(header, self._enlarger.treatment(header.extra))
        held = enlargement.shrinks and shape.margins.wraps
        return self._enlarger.plan(shape, enlargement, result_is_held=held)
