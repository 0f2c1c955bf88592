"""What is settled from headers, before any work."""

from pathlib import Path

from escsr.cli.collection import InputFile
from escsr.cli.destination import Destination
from escsr.cli.options import Existing
from escsr.cli.plan import Job, PlanRules, plan_jobs

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


def test_two_spellings_of_one_output_clash(make_picture: MakePicture, tmp_path: Path) -> None:
    """A link to a folder leads to the same file."""
    make_picture("real/a.png")
    make_picture("real/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    files = [
        InputFile(path=tmp_path / "real/a.png"),
        InputFile(path=tmp_path / "link/a.jpg"),
    ]
    planned = plan_jobs(files, rules(Destination(image_suffix=".webp")))
    assert [entry.status for entry in planned if not isinstance(entry, Job)] == ["failed"] * 2


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
