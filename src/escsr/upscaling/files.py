"""From file to file: check first, then stream; of many files, read and write while others run.

Reading, encoding and the network leave Python's lock, so they really run side by side. Files go
through the network one after another and in order, in the calling thread, which is told of
everything; so it is there that Ctrl-C ends the run.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

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
from escsr.machine import free_memory_bytes
from escsr.temporary_files import remove_abandoned
from escsr.upscaling.arrays import shrink_pixels
from escsr.upscaling.passes import MultiPassUpscaler, WorkPlan, assemble
from escsr.upscaling.pixels import PixelPlanes, Pixels, planes_of, shape_of_file
from escsr.upscaling.progress import OnProgress
from escsr.upscaling.sizes import Enlargement, SizeRequest

READ_AHEAD_BYTES = 2**26
"""Sources larger than this are read when their turn comes, so that memory holds only one."""
WRITE_BEHIND_BYTES = 2**26
"""Results that may wait for their encoders; one of any size may."""
WRITE_BEHIND_FILES = 16
"""As many files may wait for theirs: each holds an open file and a thread."""
LEAST_TO_OVERLAP_BYTES = 2**29
"""With less memory at hand, one file after another: no plan counts what others hold."""


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
    request: SizeRequest
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
    header: ImageHeader | None = None
    """What reading will give, where the file has been looked at already."""

    def run(
        self, upscaler: MultiPassUpscaler, on_progress: OnProgress | None = None
    ) -> UpscaleReport:
        """Enlarge the file.

        The output appears whole or not at all, also when the program is interrupted.

        Args:
            upscaler: the networks.
            on_progress: told the fraction done.
        Raises:
            ImageReadError, ImageSizeError: the input, or the size asked for.
            ImageFormatError, ImageWriteError, OutputExistsError: the output; before the work.
            DeviceMemoryError: not even the smallest tile fits.
        """
        started = time.monotonic()
        picture = self.check(upscaler).read(upscaler)
        plan = picture.plan(upscaler)
        with picture.writer() as writer:
            for rows in picture.rows(upscaler, plan, on_progress):
                writer.hand_over(rows)
        return picture.report(upscaler, plan, seconds=time.monotonic() - started)

    def check(self, upscaler: MultiPassUpscaler) -> "FileJob":
        """Settle from the header alone what will be made, and that nothing stands in its way.

        Returns:
            The job with its header.
        Raises:
            As ``run``, but for what only the pixels, the memory and the disk can tell.
        """
        require_other_file(self.input, self.output)
        header = self.header or probe_image(self.input, max_pixels=self.max_pixels)
        width, height = upscaler.plan_size(header.width, header.height, self.request).target_size
        if self.make_folder:
            _make_folder(self.output.parent)
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
        return replace(self, header=header)

    @property
    def num_bytes(self) -> int:
        """What the pixels of a checked job will take in memory."""
        assert self.header is not None
        return shape_of_file(self.header).num_bytes

    def read(self, upscaler: MultiPassUpscaler) -> "LoadedFile":
        """Decode the pixels of a checked job.

        Raises:
            ImageReadError, ImageSizeError: the input.
        """
        image = read_image(self.input, max_pixels=self.max_pixels)
        planes = planes_of(image.pixels, upscaler.treatment(image.extra))
        return LoadedFile(
            job=self,
            enlargement=upscaler.plan_size(planes.width, planes.height, self.request),
            bit_depth=image.bit_depth,
            metadata=image.metadata,
            planes=planes,
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

    def plan(self, upscaler: MultiPassUpscaler) -> WorkPlan:
        """Settle tiles and precision; loads the networks.

        Raises:
            DeviceMemoryError: the memory limit cannot be kept.
        """
        return upscaler.plan(
            self.planes.shape, self.enlargement, result_is_held=self._shrinks_repeated
        )

    def rows(
        self, upscaler: MultiPassUpscaler, plan: WorkPlan, on_progress: OnProgress | None = None
    ) -> Iterator[Pixels]:
        """What the networks make, as the writer takes it."""
        rows = upscaler.stream(self.planes, plan, on_progress)
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

    def report(
        self, upscaler: MultiPassUpscaler, plan: WorkPlan, *, seconds: float
    ) -> UpscaleReport:
        """Say what was done."""
        width, height = self.planes.width, self.planes.height
        return UpscaleReport(
            input=self.job.input,
            output=self.job.output,
            input_size=(width, height),
            output_size=self.enlargement.target_size,
            seconds=seconds,
            model=upscaler.models.name,
            passes=self.enlargement.factors(width, height),
            device=upscaler.models.device,
            precision=plan.precision,
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


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOutcome:
    """What became of one file."""

    seconds: float
    """Time it took, without what it waited for other files."""
    report: UpscaleReport | None = None
    """What was done; None where it failed."""
    error: Exception | None = None
    """Why it failed."""


class FileWatch(Protocol):
    """Who is told of a run, always in the thread that runs it."""

    def begin(self, index: int) -> None:
        """The network turns to a file."""
        ...

    def advance(self, fraction: float) -> None:
        """The network has done this much of that file, from 0 to 1."""
        ...

    def end(self, index: int, outcome: FileOutcome) -> None:
        """A file is finished or has failed; told in order, while later files have begun."""
        ...


def run_files(
    upscaler: MultiPassUpscaler, jobs: Sequence[FileJob], watch: FileWatch, *, overlap: bool = True
) -> None:
    """Enlarge files; what goes wrong with one is its own outcome and no other's.

    What killed runs left unfinished in the output folders is removed first.

    Args:
        upscaler: the networks. Where its memory is limited or little is free, nothing overlaps: the
            plan of one file does not count what is held for the others.
        jobs: the files; no output may be another's input.
        watch: told of each.
        overlap: whether to read and write while the network works.
    Raises:
        BaseException: whatever interrupts the run, such as KeyboardInterrupt, after unfinished
            outputs are removed and ``watch`` was told of those that are finished.
    """
    for folder in {job.output.parent for job in jobs}:
        remove_abandoned(folder)
    free_bytes = free_memory_bytes()
    is_tight = free_bytes is not None and free_bytes < LEAST_TO_OVERLAP_BYTES
    if overlap and not is_tight and upscaler.settings.memory_limit_bytes is None:
        _OverlappingRun(upscaler, jobs, watch).run()
        return
    for index, job in enumerate(jobs):
        watch.begin(index)
        started = time.monotonic()
        report, failure = None, None
        try:
            report = job.run(upscaler, watch.advance)
        except Exception as error:
            failure = error
        seconds = time.monotonic() - started
        watch.end(index, FileOutcome(seconds=seconds, report=report, error=failure))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What the reading thread has of a file."""

    checked: FileJob
    loaded: LoadedFile | None
    """None of a large file, which waits for its turn."""
    seconds: float


@dataclass(kw_only=True, slots=True)
class _Unfinished:
    """A file whose rows are all made and that is still being written."""

    index: int
    writer: ImageWriter
    num_bytes: int
    """Of its rows."""
    report: UpscaleReport
    """For when it is written; its seconds end with the last row."""
    made_at: float
    """When that was."""
    ending: "Future[_Ending] | None" = None

    def outcome(self) -> FileOutcome:
        """What became of it; waits for that."""
        assert self.ending is not None
        ending = self.ending.result()
        seconds = self.report.seconds + ending.at - self.made_at
        if ending.error is not None:
            return FileOutcome(seconds=seconds, error=ending.error)
        return FileOutcome(seconds=seconds, report=replace(self.report, seconds=seconds))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ending:
    """How the writing of a file ended."""

    at: float
    error: Exception | None


class _OverlappingRun:
    def __init__(
        self, upscaler: MultiPassUpscaler, jobs: Sequence[FileJob], watch: FileWatch
    ) -> None:
        self._upscaler = upscaler
        self._jobs = jobs
        self._watch = watch
        self._unfinished: deque[_Unfinished] = deque()
        self._outcomes: dict[int, FileOutcome] = {}
        """Of files that end before an earlier one."""
        self._num_told = 0
        self._is_telling = False

    def run(self) -> None:
        self._reader = ThreadPoolExecutor(1, "escsr-reader")
        # A thread for each, and for the one that comes on top: none waits for another's encoder.
        self._finisher = ThreadPoolExecutor(WRITE_BEHIND_FILES + 1, "escsr-finisher")
        try:
            self._run_all()
        except BaseException as error:
            self._give_up()
            if isinstance(error, KeyboardInterrupt):
                self._tell()
            raise
        finally:
            for executor in (self._reader, self._finisher):
                executor.shutdown(cancel_futures=True)

    def _run_all(self) -> None:
        following: Future[_Read] | None = self._read_ahead(0)
        for index in range(len(self._jobs)):
            reading, following = following, None
            assert reading is not None
            self._watch.begin(index)
            started, reading_seconds = time.monotonic(), 0.0
            loaded: LoadedFile | None = None
            try:
                read = reading.result()
                del reading
                started, reading_seconds = time.monotonic(), read.seconds
                loaded = read.loaded or read.checked.read(self._upscaler)
                del read
                following = self._read_ahead(index + 1)
                self._enlarge(index, loaded, started - reading_seconds)
            except Exception as error:
                if self._is_telling:
                    raise
                seconds = time.monotonic() - started + reading_seconds
                self._outcomes[index] = FileOutcome(seconds=seconds, error=error)
                self._tell()
            finally:
                # Or a large source would stay while the next is decoded.
                loaded = None
            following = following or self._read_ahead(index + 1)
        self._finish_until(0)

    def _read_ahead(self, index: int) -> Future[_Read] | None:
        if index >= len(self._jobs):
            return None
        return self._reader.submit(_read, self._jobs[index], self._upscaler)

    def _enlarge(self, index: int, loaded: LoadedFile, started: float) -> None:
        """Make all rows of a file, and leave it to its encoder.

        Args:
            index: of the file.
            loaded: the file.
            started: when it would have begun, had nothing overlapped.
        """
        plan = loaded.plan(self._upscaler)
        with ExitStack() as stack:
            writer = stack.enter_context(loaded.writer())
            for rows in loaded.rows(self._upscaler, plan, self._advance):
                writer.hand_over(rows)
            made_at = time.monotonic()
            report = loaded.report(self._upscaler, plan, seconds=made_at - started)
            unfinished = _Unfinished(
                index=index,
                writer=writer,
                num_bytes=loaded.result_bytes,
                report=report,
                made_at=made_at,
            )
            # First known, then let go: an interruption in between finds it.
            self._unfinished.append(unfinished)
            stack.pop_all()
        unfinished.ending = self._finisher.submit(_finish, writer)
        self._finish_until(WRITE_BEHIND_BYTES)

    def _advance(self, fraction: float) -> None:
        self._watch.advance(fraction)
        while self._unfinished and _is_finished(self._unfinished[0]):
            self._finish_first()

    def _finish_until(self, num_bytes: int) -> None:
        """Wait for encoders until what is unfinished is no more than this, or one file."""
        least = 1 if num_bytes else 0
        while len(self._unfinished) > least and self._are_too_many(num_bytes):
            self._finish_first()

    def _are_too_many(self, num_bytes: int) -> bool:
        unfinished_bytes = sum(entry.num_bytes for entry in self._unfinished)
        return unfinished_bytes > num_bytes or len(self._unfinished) > WRITE_BEHIND_FILES

    def _finish_first(self) -> None:
        entry = self._unfinished[0]
        # Kept before the entry goes: an interruption in between loses nothing.
        self._outcomes[entry.index] = entry.outcome()
        self._unfinished.popleft()
        self._tell()

    def _tell(self) -> None:
        while self._num_told in self._outcomes:
            self._is_telling = True
            index, self._num_told = self._num_told, self._num_told + 1
            self._watch.end(index, self._outcomes.pop(index))
            self._is_telling = False

    def _give_up(self) -> None:
        """Keep what is complete, and remove the rest."""
        for entry in self._unfinished:
            if not _is_finished(entry):
                entry.writer.abandon()
        for entry in self._unfinished:
            if entry.ending is None:
                entry.writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
            elif (outcome := entry.outcome()).report is not None:
                self._outcomes[entry.index] = outcome


def _read(job: FileJob, upscaler: MultiPassUpscaler) -> _Read:
    started = time.monotonic()
    checked = job.check(upscaler)
    loaded = checked.read(upscaler) if checked.num_bytes <= READ_AHEAD_BYTES else None
    return _Read(checked=checked, loaded=loaded, seconds=time.monotonic() - started)


def _finish(writer: ImageWriter) -> _Ending:
    """Wait for the encoder, and put the file in its place."""
    failure = None
    try:
        writer.__exit__(None, None, None)
    except Exception as error:
        failure = error
    return _Ending(at=time.monotonic(), error=failure)


def _is_finished(entry: _Unfinished) -> bool:
    return entry.ending is not None and entry.ending.done()
