"""The Upscaler: the one class most users need."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import numpy.typing as npt

from escsr.engines.engine import (
    AttentionChoice,
    Backend,
    BackendChoice,
    EngineOptions,
    Padding,
    PrecisionChoice,
)
from escsr.errors import ImageValueError
from escsr.images.files import DEFAULT_MAX_PIXELS, probe_image, read_image
from escsr.temporary_files import remove_abandoned
from escsr.upscaling.arrays import (
    array_like,
    is_picture,
    is_tensor,
    picture_like,
    pixels_of_array,
    pixels_of_picture,
    upscale_pixels,
    upscale_tensor,
)
from escsr.upscaling.borders import Edges
from escsr.upscaling.files import FileJob, FileWatch, UpscaleReport, run_files
from escsr.upscaling.memory import TileChoice
from escsr.upscaling.models import ModelPool
from escsr.upscaling.passes import MultiPassUpscaler, WorkPlan, WorkSettings
from escsr.upscaling.pixels import AlphaMeaning, Pixels
from escsr.upscaling.progress import OnProgress
from escsr.upscaling.sizes import SizeOptions, SizeRequest, require_factor, require_factor_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as Picture
    from torch import Tensor, nn

    from escsr.model.attention.flash_bias import RankRule


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
        model: a name (``escsr models`` lists them), the path of a file of weights,
            ``module:callable``, or a module with a ``scale``, which is copied. All but the first
            have only their own factor. Networks of others need ``escsr[rivals]``.
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
        num_threads: of a CPU; 0 is one for each core that the process may use.
        tta: ask the network about eight flips and rotations and average: a little better, eight
            times slower.
    Raises:
        UnknownModelError, CheckpointError: the model.
        ConfigurationError: any other argument.
    """

    def __init__(
        self,
        model: "str | os.PathLike[str] | nn.Module" = "esc-tiny",
        *,
        scale: float | None = None,
        device: "str | torch.device" = "auto",
        precision: PrecisionChoice = "auto",
        tile: TileChoice = "auto",
        overlap_pixels: int | None = None,
        memory_limit_bytes: int | None = None,
        exact: bool = False,
        backend: BackendChoice = "auto",
        attention_backend: AttentionChoice | None = "auto",
        flash_bias: "RankRule | None" = None,
        keep_colours: bool = True,
        alpha: AlphaMeaning = "opacity",
        edges: Edges = "auto",
        padding: Padding = "none",
        num_threads: int = 0,
        tta: bool = False,
    ) -> None:
        if scale is not None:
            require_factor(scale)
        settings = WorkSettings(
            tile=tile,
            overlap_pixels=overlap_pixels,
            memory_limit_bytes=memory_limit_bytes,
            keep_colours=keep_colours,
            tta=tta,
            exact=exact,
            alpha=alpha,
            edges=edges,
        )
        options = EngineOptions(
            device=str(device),
            backend=backend,
            precision=precision,
            attention=attention_backend,
            flash_bias=flash_bias,
            padding=padding,
            num_threads=num_threads,
        )
        models = ModelPool(model, options)
        if scale is not None:
            require_factor_of(scale, models.scales, makes_any_size=models.makes_any_size)
        self._upscaler = MultiPassUpscaler(models, settings, default_scale=scale)

    @property
    def model_name(self) -> str:
        """Name of the model in the box, of the checkpoint file, or of the network's class."""
        return self._upscaler.models.name

    @property
    def scales(self) -> tuple[int, ...]:
        """Factors of the networks at hand; 1 is a restorer's."""
        return self._upscaler.models.scales

    @property
    def device(self) -> str:
        """Where the networks run, such as "cpu" or "cuda:0"."""
        return self._upscaler.models.device

    @property
    def backend(self) -> Backend:
        """How they run: what was asked for, or what "auto" took; opens a network."""
        models = self._upscaler.models
        return models.engine(models.default_scale).name

    @overload
    def __call__(self, image: str | os.PathLike[str], **size: Unpack[SizeOptions]) -> Pixels: ...
    @overload
    def __call__(self, image: "Picture", **size: Unpack[SizeOptions]) -> "Picture": ...
    @overload
    def __call__(
        self, image: npt.NDArray[Any], **size: Unpack[SizeOptions]
    ) -> npt.NDArray[Any]: ...
    @overload
    def __call__(self, image: "Tensor", **size: Unpack[SizeOptions]) -> "Tensor": ...
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
        request = SizeRequest(scale=scale, width=width, height=height, longest=longest)
        if isinstance(image, (str, os.PathLike)):
            source = read_image(Path(image))
            return upscale_pixels(self._upscaler, source.pixels, request, extra=source.extra)
        if isinstance(image, np.ndarray):
            return array_like(
                upscale_pixels(self._upscaler, pixels_of_array(image), request), image
            )
        if is_tensor(image):
            return upscale_tensor(self._upscaler, image, request)
        if is_picture(image):
            return picture_like(
                upscale_pixels(self._upscaler, pixels_of_picture(image), request), image
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
            request=SizeRequest(scale=scale, width=width, height=height, longest=longest),
            overwrite=overwrite,
            quality=quality,
            max_pixels=max_pixels,
        )
        remove_abandoned(job.output.parent)
        return job.run(self._upscaler, on_progress)

    def upscale_files(self, jobs: Sequence[FileJob], watch: FileWatch) -> None:
        """Enlarge many files, reading and writing while the network works: ``run_files``."""
        run_files(self._upscaler, jobs, watch)

    def output_size(
        self, input_size: tuple[int, int], **size: Unpack[SizeOptions]
    ) -> tuple[int, int]:
        """Size of the result for a source of one size, (width, height); does no work.

        Size and errors as for a call.
        """
        return self._upscaler.plan_size(*input_size, SizeRequest(**size)).target_size

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
        return self._upscaler.plan_of_file(header, SizeRequest(**size))


def upscale(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
    longest: int | None = None,
    model: "str | os.PathLike[str] | nn.Module" = "esc-tiny",
    overwrite: bool = False,
    quality: int | None = None,
    **options: Any,
) -> UpscaleReport:
    """Enlarge one file; for many, keep an :class:`Upscaler`, which loads its weights once.

    Args:
        input: the image file.
        output: the file to write; its suffix chooses the format.
        scale: factor above 1 and at most 16; without any size, x4 or the model's own.
        width: of the result, instead of a factor; alone, it keeps the shape.
        height: likewise.
        longest: longer side of the result, instead of a factor.
        model: as of :class:`Upscaler`.
        overwrite: whether an existing output may be replaced.
        quality: 1 to 100 for JPEG, WebP and AVIF.
        options: further arguments of :class:`Upscaler`, such as ``device`` or ``tile``.
    Raises:
        EscsrError: as :class:`Upscaler` and :meth:`Upscaler.upscale_file`.
    """
    return Upscaler(model, **options).upscale_file(
        input,
        output,
        scale=scale,
        width=width,
        height=height,
        longest=longest,
        overwrite=overwrite,
        quality=quality,
    )
