"""From file to file: check first, then stream."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import ImageWriteError, OutputExistsError
from escsr.images.files import (
    DEFAULT_MAX_PIXELS,
    ImageHeader,
    ImageMetadata,
    probe_image,
    read_image,
)
from escsr.images.formats import format_for_writing
from escsr.images.writer import ImageWriter, check_output
from escsr.inference.enlarger import Enlarger, WorkPlan, assemble
from escsr.inference.geometry import Enlargement, SizeWish
from escsr.inference.planes import PixelPlanes, Pixels, Treatment, planes_of, shape_of_file
from escsr.inference.progress_meter import OnProgress
from escsr.inference.shrinking import shrink_pixels


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
    """From the first check to the finished file, without what it waited for other files."""
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
    is_exact: bool
    """Whether the result is what the whole image gives in one piece."""
    disk_bytes: int
    """Size of the temporary files."""
    notes: tuple[str, ...] = ()
    """What the input holds beside its pixels and the output does not, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileJob:
    """One file to enlarge: check it, read it, and write what the networks make of it."""

    input: Path
    """Any readable image."""
    output: Path
    """Its suffix chooses the format."""
    wish: SizeWish
    """Factor or size."""
    overwrite: bool = False
    """Whether an existing output may be replaced; the input never is."""
    make_folder: bool = False
    """Whether the output's folder is made where it is missing."""
    quality: int | None = None
    """1 to 100 for JPEG, WebP and AVIF."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Larger inputs are refused."""
    keep_time: bool = False
    """Whether the output gets the input's time of modification."""
    is_copy: bool = False
    """The input is a temporary copy, whose permissions and time mean nothing."""

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
        picture = self.check(enlarger).read()
        plan = picture.plan(enlarger)
        with picture.writer() as writer:
            for rows in picture.rows(enlarger, plan, on_progress):
                writer.hand_over(rows)
        return picture.report(enlarger, plan, seconds=time.monotonic() - started)

    def check(self, enlarger: Enlarger) -> "CheckedFile":
        """Settle from the header alone what will be made, and that nothing stands in its way.

        Raises:
            As ``run``, but for what only the pixels, the memory and the disk can tell.
        """
        require_other_file(self.input, self.output)
        header = probe_image(self.input, max_pixels=self.max_pixels)
        enlargement = enlarger.plan_size(header.width, header.height, self.wish)
        if self.make_folder:
            _make_folder(self.output.parent)
        width, height = enlargement.target_size
        check_output(
            self.output,
            width=width,
            height=height,
            channels=header.channels,
            bit_depth=header.bit_depth,
            colour=header.colour,
            extra=header.extra,
            overwrite=self.overwrite,
        )
        return CheckedFile(
            job=self,
            header=header,
            enlargement=enlargement,
            treatment=enlarger.treatment(header.extra),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedFile:
    """A file that can be read."""

    job: FileJob
    """What is asked for."""
    header: ImageHeader
    """What reading will give."""
    enlargement: Enlargement
    """Passes and sizes."""
    treatment: Treatment
    """Of its channels and borders."""

    @property
    def num_bytes(self) -> int:
        """What its pixels will take in memory."""
        return shape_of_file(self.header).num_bytes

    def read(self) -> "LoadedFile":
        """Decode the pixels.

        Raises:
            ImageReadError, ImageSizeError: the input.
        """
        image = read_image(self.job.input, max_pixels=self.job.max_pixels)
        return LoadedFile(
            job=self.job,
            enlargement=self.enlargement,
            bit_depth=image.bit_depth,
            metadata=image.metadata,
            planes=planes_of(image.pixels, self.treatment),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedFile:
    """A file in memory, ready for the networks."""

    job: FileJob
    """What is asked for."""
    enlargement: Enlargement
    """Passes and sizes."""
    bit_depth: int
    """Of the source and of the result."""
    metadata: ImageMetadata
    """What goes along."""
    planes: PixelPlanes
    """The pixels."""

    @property
    def result_bytes(self) -> int:
        """What the rows that the networks make take in memory, all together."""
        width, height = self.enlargement.network_size
        return width * height * self.planes.channels * self.bit_depth // 8

    def plan(self, enlarger: Enlarger) -> WorkPlan:
        """Settle tiles and precision; loads the networks.

        Raises:
            DeviceMemoryError: the memory limit cannot be kept.
        """
        return enlarger.plan(
            self.planes.shape, self.enlargement, result_is_held=self._shrinks_repeated
        )

    def rows(
        self, enlarger: Enlarger, plan: WorkPlan, on_progress: OnProgress | None = None
    ) -> Iterator[Pixels]:
        """What the networks make, as the writer takes it."""
        rows = enlarger.stream(self.planes, plan, on_progress)
        if not self._shrinks_repeated:
            return rows
        # Its first rows are made of its last ones too.
        whole = assemble(rows, self.planes, self.enlargement.network_size)
        width, height = self.enlargement.target_size
        return iter([shrink_pixels(whole, width=width, height=height, wraps=True)])

    @property
    def _shrinks_repeated(self) -> bool:
        return self.enlargement.shrinks and self.planes.margins.wraps

    def writer(self) -> ImageWriter:
        """The output, to be entered and given what ``rows`` makes."""
        enlargement = self.enlargement
        is_resized = enlargement.shrinks and not self._shrinks_repeated
        width, height = enlargement.network_size if is_resized else enlargement.target_size
        return ImageWriter(
            self.job.output,
            width=width,
            height=height,
            channels=self.planes.channels,
            bit_depth=self.bit_depth,
            metadata=self.metadata,
            quality=self.job.quality,
            overwrite=self.job.overwrite,
            target_size=enlargement.target_size if is_resized else None,
            source=None if self.job.is_copy else self.job.input,
            keep_time=self.job.keep_time,
            # Colours go on where opacity ends, so they need no weights, and hidden ones stay.
            weighs_opacity=False,
        )

    def report(self, enlarger: Enlarger, plan: WorkPlan, *, seconds: float) -> UpscaleReport:
        """Say what was done."""
        width, height = self.planes.width, self.planes.height
        return UpscaleReport(
            input=self.job.input,
            output=self.job.output,
            input_size=(width, height),
            output_size=self.enlargement.target_size,
            seconds=seconds,
            model=enlarger.shelf.name,
            passes=self.enlargement.factors(width, height),
            device=str(enlarger.shelf.device),
            precision=str(plan.dtype).removeprefix("torch."),
            num_tiles=plan.num_tiles,
            tile_pixels=plan.tile_pixels,
            peak_memory_bytes=plan.peak_memory_bytes,
            is_exact=plan.is_exact,
            disk_bytes=plan.disk_bytes,
            notes=tuple(self.metadata.left_out(format_for_writing(self.job.output).name)),
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(
            f"The output folder {folder} cannot be made: {error.strerror}. Give another --output."
        ) from error
