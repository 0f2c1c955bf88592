"""What the training data may take of this machine."""

import pytest

from escsr.training.data import machine


@pytest.mark.parametrize(
    ("free_bytes", "cache_bytes"), [(None, 1 << 30), (0, 0), (8 << 30, 2 << 30)]
)
def test_no_memory_is_not_unknown_memory(
    free_bytes: int | None, cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is free for two processes; of 4 GiB where the system does not tell."""
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: free_bytes)
    assert machine.default_cache_bytes(processes=2) == cache_bytes
