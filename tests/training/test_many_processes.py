"""Two processes with half the batch each are one process with the whole."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.training.adversarial.runs import GAN_RECIPE
from tests.training.pictures import write_pictures
from tests.training.processes import finish, start, wait_for_rows, write_recipe
from tests.training.runs import checkpoints_of, log_of

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PROBE = Path(__file__).with_name("rank_probe.py")

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of the smallest recipe and of a GAN's, by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    write_pictures(folder / "photographs")
    write_recipe(folder / "classic.toml")
    write_recipe(
        folder / "gan.toml", GAN_RECIPE | {"steps": 4, "data": {"batch_size": 4, "patch_pixels": 8}}
    )
    for launcher, out in (((), "one"), (TORCHRUN, "two")):
        status, _, stderr = finish(start(*launcher, PROBE, folder, folder / out))
        assert status == 0, stderr
    return folder


@pytest.mark.parametrize("recipe", ["classic", "gan"])
def test_two_processes_equal_one_with_the_whole_batch(runs: Path, recipe: str) -> None:
    """But for the order of float64 sums; the weights of both processes are equal bit for bit."""
    one, two = runs / "one" / recipe, runs / "two" / recipe
    rows = everything_but_clocks(one)
    assert len(rows[0]) == {"classic": 3, "gan": 8}[recipe]
    for ours, expected in zip(everything_but_clocks(two), rows, strict=True):
        assert ours == pytest.approx(expected, rel=1e-9)
    alone, first, second = (
        torch.load(path) for path in (one / "rank-0.pt", two / "rank-0.pt", two / "rank-1.pt")
    )
    for key, tensor in alone.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], tensor, rtol=0, atol=1e-9, msg=key)


def everything_but_clocks(out: Path) -> list[list[float]]:
    """Rows of a log: step, learning rate and every loss."""
    columns = (out / "log.csv").read_text().splitlines()[0].split(",")
    chosen = [name for name in columns if name.startswith(("step", "learning_rate", "loss"))]
    return [list(map(float, row)) for row in log_of(out, *chosen)]


def test_one_process_that_is_asked_to_stop_ends_both_with_their_state_saved(runs: Path) -> None:
    """The second is asked after its third step alone; both stop, soon, after the same step."""
    out = runs / "two" / "stopped"
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
