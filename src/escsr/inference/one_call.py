"""One file enlarged by one call, without keeping anything."""

import os
from typing import Any

from escsr.inference.file_job import UpscaleReport
from escsr.inference.models import ModelSource
from escsr.inference.upscaler import Upscaler


def upscale(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
    longest: int | None = None,
    model: ModelSource = "esc-tiny",
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
        model: a name in the box, the path of a checkpoint, or a network.
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
