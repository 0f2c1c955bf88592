"""From file to file: check first, then stream."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import OutputExistsError
from escsr.images.files import DEFAULT_MAX_PIXELS, probe_image, read_image
from escsr.images.writer import ImageWriter, check_output
from escsr.inference.enlarger import Enlarger, OnProgress
from escsr.inference.geometry import SizeWish
from escsr.inference.planes import planes_of


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleReport:
    """What was done to one file."""

    input: Path
    """The file that was read."""
    output: Path
    """The file that was written."""
    input_size: tuple[int, int]
    """(width, height), upright, in pixels."""
    output_size: tuple[int, int]
    """(width, height) in pixels."""
    seconds: float
    """From the first check to the finished file."""
    model: str
    """Name of the model or file."""
    passes: tuple[float, ...]
    """Factors of the networks that ran, in order; the larger of both sides' where they differ."""
    device: str
    """Where they ran."""
    precision: str
    """In which precision: float32, float16 or bfloat16."""
    num_tiles: int
    """Tiles planned, over all passes; 1 is the whole image at once."""
    tile_pixels: int
    """Longest side of a tile in the last pass, in pixels of what it read."""
    peak_memory_bytes: int
    """Estimate made before the work, beside the program itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileJob:
    """One file to enlarge."""

    input: Path
    """Any readable image."""
    output: Path
    """Its suffix chooses the format."""
    wish: SizeWish
    """Factor or size."""
    overwrite: bool = False
    """Whether an existing output may be replaced; the input never is."""
    quality: int | None = None
    """1 to 100 for JPEG, WebP and AVIF."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Larger inputs are refused."""

    def run(self, enlarger: Enlarger, on_progress: OnProgress | None = None) -> UpscaleReport:
        """Enlarge the file.

        The output appears whole or not at all, also when the program is interrupted.

        Args:
            enlarger: the networks.
            on_progress: told the fraction done.
        Raises:
            ImageReadError, ImageSizeError: the input, or the size asked for.
            ImageFormatError, ImageWriteError, OutputExistsError: the output; before the work.
            DeviceMemoryError: not even the smallest tile fits.
        """
        started = time.monotonic()
        require_other_file(self.input, self.output)
        header = probe_image(self.input, max_pixels=self.max_pixels)
        enlargement = enlarger.plan_size(header.width, header.height, self.wish)
        width, height = enlargement.target_size
        check_output(
            self.output,
            width=width,
            height=height,
            channels=header.channels,
            bit_depth=header.bit_depth,
            overwrite=self.overwrite,
        )
        image = read_image(self.input, max_pixels=self.max_pixels)
        source = planes_of(image.pixels)
        plan = enlarger.plan(source.shape, enlargement, result_is_held=False)
        with ImageWriter(
            self.output,
            width=enlargement.network_size[0],
            height=enlargement.network_size[1],
            channels=source.channels,
            bit_depth=image.bit_depth,
            metadata=image.metadata,
            quality=self.quality,
            overwrite=self.overwrite,
            target_size=enlargement.target_size if enlargement.shrinks else None,
        ) as writer:
            for rows in enlarger.stream(source, plan, on_progress):
                writer.write_rows(rows)
        return UpscaleReport(
            input=self.input,
            output=self.output,
            input_size=(header.width, header.height),
            output_size=enlargement.target_size,
            seconds=time.monotonic() - started,
            model=enlarger.shelf.name,
            passes=enlargement.factors(header.width, header.height),
            device=str(enlarger.shelf.device),
            precision=str(plan.dtype).removeprefix("torch."),
            num_tiles=plan.num_tiles,
            tile_pixels=plan.tile_pixels,
            peak_memory_bytes=plan.peak_memory_bytes,
        )


def require_other_file(source: Path, output: Path) -> None:
    """Refuse to write over the input, however it is reached: links and hard links included.

    Raises:
        OutputExistsError: both paths lead to one file.
    """
    same = source.resolve() == output.resolve()
    # Path.exists raises below closed folders, which are told of later and better.
    if not same and all(map(os.path.exists, (source, output))):
        same = source.samefile(output)
    if same:
        raise OutputExistsError(
            f"The output {output} is the input itself, and an input is never overwritten. Choose "
            "another name."
        )
