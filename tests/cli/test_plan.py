"""What is settled from headers, before any work."""

from pathlib import Path

from escsr.cli.inputs import InputFile
from escsr.cli.upscale_plan import Destination, Existing, FileResult, Job, PlanRules, plan_jobs

from .conftest import MakePicture


def rules(destination: Destination, *, existing: Existing = "refuse") -> PlanRules:
    """Twice as large."""
    return PlanRules(
        destination=destination,
        target_size=lambda size: (2 * size[0], 2 * size[1]),
        scale_label="x2",
        existing=existing,
        max_pixels=10**6,
    )


def test_every_input_has_one_entry_in_order(make_picture: MakePicture, tmp_path: Path) -> None:
    """A job, or what became of the input already."""
    files = [
        InputFile(path=make_picture("a.png")),
        InputFile(path=tmp_path / "gone.png"),
        InputFile(path=make_picture("b.jpg")),
    ]
    planned = plan_jobs(files, rules(Destination(folder=tmp_path / "out")))
    assert [type(entry) is Job for entry in planned] == [True, False, True]
    assert not (tmp_path / "out").exists()


def outputs_of(planned: list[Job | FileResult], folder: Path) -> list[str]:
    """Where jobs write, below a folder; all entries must be jobs."""
    assert all(isinstance(entry, Job) for entry in planned), planned
    return [e.output.relative_to(folder).as_posix() for e in planned if isinstance(e, Job)]


def test_equal_names_of_several_folders_go_to_folders_of_their_own(
    make_picture: MakePicture, tmp_path: Path
) -> None:
    """Those that are alone keep the short way, and one within the other stays above it."""
    names = ["in/1.png", "in/a/1.png", "in/b/1.png", "in/b/2.png"]
    files = [InputFile(path=make_picture(name)) for name in names]
    planned = plan_jobs(files, rules(Destination(folder=tmp_path / "out")))
    assert outputs_of(planned, tmp_path / "out") == ["1.png", "a/1.png", "b/1.png", "2.png"]


def test_equal_stems_keep_their_suffixes_where_the_format_changes(
    make_picture: MakePicture, tmp_path: Path
) -> None:
    """In an output folder and beside the inputs; a file of the format asked for keeps its name."""
    files = [InputFile(path=make_picture(f"in/a.{suffix}")) for suffix in ("jpg", "png", "webp")]
    planned = plan_jobs(files, rules(Destination(folder=tmp_path, image_suffix=".webp")))
    assert outputs_of(planned, tmp_path) == ["a.jpg.webp", "a.png.webp", "a.webp"]
    cases = [InputFile(path=make_picture(f"in/b.{suffix}")) for suffix in ("jpg", "JPG")]
    planned = plan_jobs(cases, rules(Destination(folder=tmp_path, image_suffix=".jpg")))
    assert outputs_of(planned, tmp_path) == ["b.jpg", "b.JPG.jpg"]
    planned = plan_jobs(files, rules(Destination(image_suffix=".tif")))
    assert outputs_of(planned, tmp_path / "in") == [f"a.{s}_x2.tif" for s in ("jpg", "png", "webp")]


def test_two_inputs_of_one_output_fail_where_no_name_keeps_them_apart(
    make_picture: MakePicture, tmp_path: Path
) -> None:
    """Two outputs that are links to one file: neither is written."""
    files = [InputFile(path=make_picture(f"in/{name}.png")) for name in "ab"]
    (tmp_path / "out").mkdir()
    for name in "ab":
        (tmp_path / f"out/{name}.png").symlink_to(tmp_path / "same.png")
    destination = Destination(folder=tmp_path / "out")
    planned = plan_jobs(files, rules(destination, existing="overwrite"))
    assert [e.error is not None and "2 inputs" in e.error for e in planned] == [True, True]  # pyright: ignore


def test_results_of_another_size_are_left_out_where_they_were_come_across(
    make_picture: MakePicture,
) -> None:
    """By name and size: of a factor, also a fraction, and of a size in pixels."""
    names = {"a": (24, 16), "a_x3": (72, 48), "a_x1.5": (36, 24), "a_60x40": (60, 40)}
    names |= {"a_x4": (24, 16), "b_x3": (72, 48), "a_30x20": (60, 40)}
    paths = [make_picture(f"{n}.png", width=w, height=h) for n, (w, h) in names.items()]
    found = [InputFile(path=path, is_named=False) for path in paths]
    planned = plan_jobs(found, rules(Destination()))
    skipped = [entry.input.stem for entry in planned if not isinstance(entry, Job)]
    assert skipped == ["a_x3", "a_x1.5", "a_60x40"]
    named = [InputFile(path=path) for path in paths[:2]]
    assert all(isinstance(entry, Job) for entry in plan_jobs(named, rules(Destination())))


def test_a_result_of_another_size_is_said_to_come_from_the_input_of_its_format(
    make_picture: MakePicture,
) -> None:
    """Where several inputs have its name and size; else from whichever there is."""
    sizes = {"1.jpg": 24, "1.png": 24, "1_x3.jpg": 72, "1_x3.png": 72, "1_x3.webp": 72}
    paths = [make_picture(n, width=side, height=side) for n, side in sizes.items()]
    found = [InputFile(path=path, is_named=False) for path in paths]
    *_, jpeg, png, webp = plan_jobs(found, rules(Destination()))
    for entry, origin in ((jpeg, "1.jpg"), (png, "1.png"), (webp, "1.jpg")):
        assert isinstance(entry, FileResult)
        assert f"{origin}, from a run for another size" in (entry.note or "")


def test_an_earlier_result_is_left_out_only_where_it_was_come_across(
    make_picture: MakePicture,
) -> None:
    """Whoever names a file means it, and then nothing may write over it."""
    photo, larger = make_picture("a.png"), make_picture("a_x2.png")
    found = [InputFile(path=path, is_named=False) for path in (photo, larger)]
    first, second = plan_jobs(found, rules(Destination(), existing="overwrite"))
    assert isinstance(first, Job)
    assert not isinstance(second, Job)
    assert second.status == "skipped"
    named = [InputFile(path=photo, is_named=False), InputFile(path=larger)]
    first, second = plan_jobs(named, rules(Destination(), existing="overwrite"))
    assert not isinstance(first, Job)
    assert "another input" in (first.error or "")
    assert isinstance(second, Job)
