"""Where a benchmark is written: JSON, Markdown and a picture of one name."""

import os
from dataclasses import dataclass
from pathlib import Path

from escsr.errors import ConfigurationError, ImageWriteError, OutputExistsError
from escsr.evaluation.benchmark.markdown import as_markdown
from escsr.evaluation.benchmark.record import Benchmark, as_json, read_benchmark
from escsr.evaluation.result_files import not_writable
from escsr.temporary_files import replace_file

_STEM = "benchmark"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultPaths:
    """The files of one run, beside each other."""

    json: Path

    @property
    def markdown(self) -> Path:
        """The page."""
        return self.json.with_suffix(".md")

    @property
    def figure(self) -> Path:
        """The picture."""
        return self.json.with_suffix(".png")


def prepare_result_paths(out: Path, *, overwrite: bool = False) -> ResultPaths:
    """Find out before the work whether its results may be stored, and make the folder.

    Args:
        out: a ``.json`` file, or a folder, new or not, that gets ``benchmark.json``.
        overwrite: replace files that are not ours.
    Raises:
        OutputExistsError: a file of that name is no benchmark of ours.
        ImageWriteError: the folder cannot be made, or is closed to us.
    """
    path = out if out.suffix.lower() == ".json" else out / f"{_STEM}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path.parent, error) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ImageWriteError(f"The folder {path.parent} may not be written to; choose another.")
    paths = ResultPaths(json=path)
    if not overwrite and not _is_free(paths):
        raise OutputExistsError(
            f"{path} or its .md or .png is there, and is no result of escsr benchmark. Choose "
            "another name, or allow overwriting."
        )
    return paths


def write_results(paths: ResultPaths, benchmark: Benchmark, picture: bytes | None) -> None:
    """Write the files; each is complete or not there, and the JSON, which holds all, comes first.

    Args:
        paths: from ``prepare_result_paths``.
        benchmark: what to tell.
        picture: a PNG file's bytes, where there is one.
    Raises:
        ImageWriteError: the disk is full, or a file is closed to us.
    """
    name = paths.figure.name if picture is not None else None
    try:
        replace_file(paths.json, as_json(benchmark).encode("utf-8"))
        page = as_markdown(benchmark, figure=name)
        if picture is not None:
            replace_file(paths.figure, picture)
        else:
            paths.figure.unlink(missing_ok=True)
        replace_file(paths.markdown, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise not_writable(paths.json.parent, error) from error


def _is_free(paths: ResultPaths) -> bool:
    """Nothing is there, or all of it is an earlier result."""
    if not any(path.exists() for path in (paths.json, paths.markdown, paths.figure)):
        return True
    try:
        read_benchmark(paths.json)
    except ConfigurationError:
        return False
    return True
