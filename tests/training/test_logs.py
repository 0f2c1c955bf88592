"""What a run tells while it trains: log, TensorBoard, sample pictures."""

from pathlib import Path

import numpy as np
import pytest

from escsr.cli.training_view import TrainingView
from escsr.evaluation import find_test_pairs
from escsr.images.files import read_image
from escsr.training.logs import Progress
from escsr.training.recipe import Recipe
from tests.training.runs import changed, log_of, train


@pytest.fixture
def watched(recipe: Recipe, photographs: Path, tmp_path: Path) -> Path:
    """A finished run of 6 steps that was judged after steps 3 and 6."""
    often = changed(recipe, watch={"validate_every_steps": 3})
    pairs = find_test_pairs(photographs, scale=2)
    train(often, photographs, tmp_path / "run", validation_pairs=pairs)
    return tmp_path / "run"


def test_the_log_has_a_row_per_logged_step(watched: Path) -> None:
    """Step, loss in full, learning rate, PSNR-Y where it was judged, two clocks, precision."""
    header = (watched / "log.csv").read_text().splitlines()[0]
    assert header == "step,loss,learning_rate,psnr_y_db,seconds,images_per_second,precision"
    rows = log_of(watched)
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    # Two steps of warm-up to 1e-3, then a cosine over the other four.
    assert [row[2] for row in rows[:3]] == ["5.0000e-04", "1.0000e-03", "1.0000e-03"]
    assert [bool(row[3]) for row in rows] == [False, False, True, False, False, True]
    assert all(float(speed) > 0 for (speed,) in log_of(watched, "images_per_second"))
    assert set(log_of(watched, "precision")) == {("float32",)}


def test_a_run_resumed_with_another_loss_keeps_its_rows(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """A loss of several terms has columns of its own, empty in the rows before it."""
    train(recipe, photographs, tmp_path / "run", stop_after=2)
    before = log_of(tmp_path / "run")
    other = changed(recipe, loss={"fft": 0.05})
    train(other, photographs, tmp_path / "run", resume=True, stop_after=3)
    assert log_of(tmp_path / "run")[:2] == before
    *earlier, last = log_of(tmp_path / "run", "loss", "loss_l1", "loss_fft")
    assert [row[1:] for row in earlier] == [("", ""), ("", "")]
    assert float(last[0]) == pytest.approx(float(last[1]) + float(last[2]), rel=1e-5)


def test_a_run_resumed_in_another_precision_says_so_and_logs_both(
    recipe: Recipe, photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Begun in bfloat16 it goes on in float32, as on a machine that does not multiply in bfloat16.

    Rows of a log from before there was the column stay, with nothing in it.
    """
    out = tmp_path / "run"
    train(changed(recipe, precision="bfloat16"), photographs, out, stop_after=2)
    rows = [line.split(",") for line in (out / "log.csv").read_text().splitlines()]
    (out / "log.csv").write_text("".join(",".join(row[:6]) + "\n" for row in rows[:2]))
    with (out / "log.csv").open("a") as log:
        log.write(",".join(rows[2][:6]) + "\n")
    before = log_of(out)
    train(recipe, photographs, out, resume=True, stop_after=3)
    assert "resumed in float32; the state was computed in bfloat16" in caplog.text
    assert log_of(out)[:2] == before
    assert log_of(out, "precision") == [("",), ("",), ("float32",)]


def test_tensorboard_has_every_figure_and_picture(watched: Path) -> None:
    """What its own writer has not yet written at the end is not lost."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is an extra"
    )
    board = accumulator.EventAccumulator(str(watched / "tensorboard"))
    board.Reload()
    losses = [event.value for event in board.Scalars("loss")]
    assert losses == pytest.approx([float(loss) for (loss,) in log_of(watched, "loss")])
    assert [event.step for event in board.Scalars("psnr_y_db")] == [3, 6]
    assert {"learning_rate", "images_per_second", "waiting_share"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["samples"]
    assert "precision/text_summary" in board.Tags()["tensors"]


def test_a_run_without_tensorboard_has_its_log(
    recipe: Recipe, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a comfort, not a condition."""
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard.writer", None)
    train(recipe, photographs, tmp_path / "run")
    assert len(log_of(tmp_path / "run")) == 6
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_samples_show_small_result_and_truth_side_by_side(watched: Path, photographs: Path) -> None:
    """A row per image, the first four: LR enlarged, the result, and the truth last.

    The pictures are 60 to 69 pixels high and 90 to 78 wide, so whole at x2.
    """
    names = sorted(path.name for path in (watched / "samples").iterdir())
    assert names == ["step-00000003.png", "step-00000006.png"]
    sheet = read_image(watched / "samples" / names[0]).pixels
    truths = [read_image(path).pixels for path in sorted(photographs.iterdir())[:4]]
    sizes = [tuple(side // 2 * 2 for side in truth.shape[:2]) for truth in truths]
    assert sheet.shape == (sum(h for h, _ in sizes), 3 * max(w for _, w in sizes), 3)
    height, width = sizes[0]
    assert np.array_equal(sheet[:height, 2 * width : 3 * width], truths[0][:height, :width])


def test_samples_without_a_test_set_are_not_written(
    recipe: Recipe, photographs: Path, tmp_path: Path
) -> None:
    """They belong to the validation."""
    train(recipe, photographs, tmp_path / "run")
    assert not (tmp_path / "run" / "samples").exists()


def test_the_time_left_may_be_days(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a hundred hours none is lost."""
    progress = Progress(
        step=0,
        steps=360_000,
        loss=0.5,
        loss_terms={},
        learning_rate=1e-4,
        psnr_y_db=None,
        seconds=1.0,
        steps_per_second=1.0,
        images_per_second=1.0,
        waiting_share=0.0,
    )
    TrainingView(is_shown=True).row(progress)
    assert "  100:00:00 left" in capsys.readouterr().err
