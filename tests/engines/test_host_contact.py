"""A folded forward asks nothing of the host, so that a GPU never waits for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from escsr.engines.folding import fold
from tests.model.networks import FEW_PARAMETERS, small_network

NETWORKS: dict[str, dict[str, Any]] = {
    "esc": {},
    "esc-fp": FEW_PARAMETERS,
    "esc-real": {"scale": 4, "upsampler": "nearest+conv", "image_skip": "none"},
    "dysample": {"scale": 4, "upsampler": "dysample", "image_skip": "none"},
    "transpose+conv": {"scale": 4, "upsampler": "transpose+conv", "image_skip": "none"},
    "lda": {"upsampler": "lda", "image_skip": "none"},
    "pa_up": {"upsampler": "pa_up", "image_skip": "none"},
    "esc-rib": {"position_bias": "implicit", "attention_gate": True},
}
"""As ``small_network`` takes them. ESC+LTE is not among them: it places pixels on the host."""


class HostContacts(TorchDispatchMode):
    """Notes every operation that a tensor of the CPU takes part in."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and look at what it took and gave."""
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if any(tensor.device.type == "cpu" for tensor in tensors):
            self.operations.add(str(func))
        return result


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_copied_to_the_device_or_read_from_it(name: str, batch: int) -> None:
    """On the device "meta", which has no numbers, so that reading one would fail as well."""
    folded = fold(small_network(**NETWORKS[name])).to("meta")
    with HostContacts() as contacts, torch.no_grad():
        folded(torch.empty(batch, 3, 9, 7, device="meta"))
    assert contacts.operations == set()
