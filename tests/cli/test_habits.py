"""Options that users of other programs know, and output for programs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from escsr import open_network
from escsr.images.files import read_image

from .conftest import Escsr, MakePicture


def events_of(text: str) -> list[dict[str, object]]:
    """One JSON object a line."""
    return [json.loads(line) for line in text.splitlines()]


def test_progress_json_is_an_event_a_line(upscale: Escsr, make_picture: MakePicture) -> None:
    """From the start to the end; a failed file is a result among the others."""
    photo = make_picture("in/a.png")
    broken = photo.with_name("b.png")
    broken.write_bytes(b"no image")
    result = upscale(photo, broken, "-o", photo.parent.parent / "out", "--progress", "json")
    assert result.exit_code == 1
    events = events_of(result.stdout)
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "start",
        "file",
        "result",
        "result",
        "end",
    ]
    assert events[0] == {"event": "start", "inputs": 2, "pixels": 48 * 32}
    assert events[1]["input"] == str(photo)
    assert (events[1]["output_width"], events[1]["output_height"]) == (48, 32)
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] == 1  # pyright: ignore
    results = {event["input"]: event for event in events if event["event"] == "result"}
    assert results[str(photo)]["status"] == "done"
    assert results[str(broken)]["status"] == "failed" and results[str(broken)]["error"]
    assert (events[-1]["done"], events[-1]["failed"]) == (1, 1)


def test_events_go_to_stderr_where_stdout_is_taken(
    upscale: Escsr, make_picture: MakePicture
) -> None:
    """By ``--json``: programs read each by itself."""
    result = upscale(make_picture(), "--progress", "json", "--json")
    assert json.loads(result.stdout)[0]["status"] == "done"
    assert events_of(result.stderr)[-1]["done"] == 1


def test_quiet_says_only_what_failed(upscale: Escsr, make_picture: MakePicture) -> None:
    """Nothing at all where all went well."""
    photo = make_picture("in/a.png")
    done = upscale(photo, "-q")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    again = upscale(photo, "-q")
    assert again.exit_code == 1
    assert again.stdout == "" and "exists already" in again.stderr
    assert len(again.stderr.splitlines()) == 1


def test_an_unknown_progress_is_refused(upscale: Escsr, make_picture: MakePicture) -> None:
    """With those that there are, before any work."""
    result = upscale(make_picture(), "--progress", "xml")
    assert result.exit_code == 2
    assert "auto, json, none" in result.stderr


def test_tta_is_the_mean_over_flips_and_rotations(
    upscale: Escsr, make_picture: MakePicture, weights: Path
) -> None:
    """As written down naively, on the picture itself; within one level of 255 for rounding."""
    photo = make_picture(width=40, height=24)
    tta, plain = photo.with_name("tta.png"), photo.with_name("plain.png")
    assert upscale(photo, "-x", "-o", tta, "--no-keep-colours").exit_code == 0
    network = open_network(weights)
    image = (read_image(photo).pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    results = [
        np.rot90(network(np.rot90(image[..., ::way], turns, (2, 3)).copy()), -turns, (2, 3))[
            ..., ::way
        ]
        for way in (1, -1)
        for turns in range(4)
    ]
    expected = np.rint(np.mean(results, axis=0).clip(0, 1) * 255)[0].transpose(1, 2, 0)
    made = read_image(tta).pixels.astype(float)
    assert np.abs(made - expected).max() <= 1
    assert upscale(photo, "-o", plain, "--no-keep-colours").exit_code == 0
    assert (read_image(plain).pixels != made).any()


def test_exact_and_tta_contradict_each_other(upscale: Escsr, make_picture: MakePicture) -> None:
    """Flips and rotations run in tiles."""
    result = upscale(make_picture(), "--tta", "--exact")
    assert result.exit_code == 2
    assert "Leave out one" in result.stderr


@pytest.mark.parametrize(("number", "said"), [("-1", "on cpu"), ("7", "cuda:7")])
def test_a_device_may_be_a_number(
    upscale: Escsr, make_picture: MakePicture, quiet_again: None, number: str, said: str
) -> None:
    """As in programs of the ncnn family: a GPU's, or -1 for the CPU."""
    result = upscale(make_picture(), "-g", number, "-v")
    assert said in result.stderr
    assert (result.exit_code == 0) == (number == "-1")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_change_nothing_in_the_result(
    upscale: Escsr, make_picture: MakePicture, threads: str
) -> None:
    """The core adds up in an order that does not depend on them."""
    photo = make_picture(width=70, height=50)
    output = photo.with_name("out.png")
    assert upscale(photo, "-j", threads, "-o", output).exit_code == 0
    reference = photo.with_name("reference.png")
    assert upscale(photo, "-o", reference).exit_code == 0
    assert (read_image(output).pixels == read_image(reference).pixels).all()


def test_format_has_a_short_name(upscale: Escsr, make_picture: MakePicture) -> None:
    """``-f`` as ``--format``."""
    photo = make_picture("a.png")
    assert upscale(photo, "-f", "webp").exit_code == 0
    assert photo.with_name("a_x2.webp").exists()


def test_completion_can_be_shown(tmp_path: Path) -> None:
    """For the shells that typer knows."""
    done = subprocess.run(
        [sys.executable, "-m", "escsr", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "_ESCSR_COMPLETE=complete_bash" in done.stdout
