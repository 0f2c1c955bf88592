"""Two processes with half the batch each are one process with the whole."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.training.processes import finish, start, wait_for_rows, write_recipe
from tests.training.runs import checkpoints_of, log_of

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PROBE = Path(__file__).with_name("rank_probe.py")

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)


@pytest.fixture
def command(photographs: Path, tmp_path: Path) -> list[str]:
    """What trains the smallest recipe and saves the averaged weights of each process."""
    recipe = write_recipe(tmp_path / "smallest.toml")
    return [str(PROBE), str(recipe), str(photographs)]


def test_two_processes_equal_one_with_the_whole_batch(command: list[str], tmp_path: Path) -> None:
    """But for the order of float64 sums; the averages of both processes are equal bit for bit."""
    one, two = tmp_path / "one", tmp_path / "two"
    for process in (start(*command, one), start(*TORCHRUN, *command, two)):
        status, _, stderr = finish(process)
        assert status == 0, stderr
    columns = ("step", "learning_rate")
    assert log_of(two, *columns) == log_of(one, *columns)
    losses = [[float(loss) for (loss,) in log_of(out, "loss")] for out in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)

    alone, first, second = (
        torch.load(path) for path in (one / "rank-0.pt", two / "rank-0.pt", two / "rank-1.pt")
    )
    for key, tensor in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], tensor, rtol=0, atol=1e-9)


def test_one_process_that_is_asked_to_stop_ends_both_with_their_state_saved(
    command: list[str], tmp_path: Path
) -> None:
    """The second is asked after its third step alone; both stop, soon, after the same step."""
    out = tmp_path / "run"
    status, _, stderr = finish(start(*TORCHRUN, *command, out, "--stop-second-at=3"))
    assert status == 0, stderr
    steps = len(log_of(out))
    assert 3 <= steps < 100_000
    assert checkpoints_of(out) == [f"step-{steps:08d}.pt"]
    first, second = (torch.load(out / f"rank-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items())


def test_sigterm_to_torchrun_saves_the_state(photographs: Path, tmp_path: Path) -> None:
    """Torchrun hands it on to both processes of ``escsr train``; the run can go on from there."""
    recipe = write_recipe(tmp_path / "smallest.toml")
    out = tmp_path / "run"
    process = start(
        *TORCHRUN,
        "-m",
        "escsr",
        "train",
        recipe,
        "--data",
        photographs,
        "--out",
        out,
        "--device",
        "cpu",
        "--set",
        "steps=100000",
    )
    wait_for_rows(out, 3, process)
    os.kill(process.pid, signal.SIGTERM)
    _, _, stderr = finish(process)
    assert stderr.count("Stopped; the state is in") == 1, stderr
    (saved,) = checkpoints_of(out)
    assert saved == f"step-{len(log_of(out)):08d}.pt"
