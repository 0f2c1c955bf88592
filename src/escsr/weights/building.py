"""Networks of torch's around weights that are there already."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from escsr.family.configuration import ESCConfig
from escsr.model.attention.backends import AttentionBackend
from escsr.model.network import ESC
from escsr.model.openmp import allow_forks
from escsr.weights.arrays import Array, Float32Array, as_tensor
from escsr.weights.fitting import fitted_weights

_DRAWING = (
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
    nn.init.orthogonal_,
    Tensor.normal_,
)


def build_network(
    config: ESCConfig,
    state: Mapping[str, Array],
    *,
    attention_backend: AttentionBackend = "sdpa",
) -> ESC:
    """Build a network around arrays, without drawing initial weights first.

    Args:
        config: of the network.
        state: arrays by our names, of any floating-point dtype; they are copied.
        attention_backend: how attention is computed.
    Returns:
        The network in float32 on the CPU, in evaluation mode.
    Raises:
        CheckpointError: names or shapes do not fit, or an array holds NaN or Inf.
    """
    weights = fitted_weights(config, state)
    return network_of(config, weights, attention_backend=attention_backend)


def network_of(
    config: ESCConfig,
    weights: Mapping[str, Float32Array],
    *,
    attention_backend: AttentionBackend = "sdpa",
) -> ESC:
    """The same around the arrays that ``fitted_weights`` returned; they become the network's."""
    allow_forks()
    network = empty_network(config, attention_backend=attention_backend)
    tensors = {name: as_tensor(array) for name, array in weights.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def empty_network(config: ESCConfig, *, attention_backend: AttentionBackend = "sdpa") -> ESC:
    """A network on the meta device: names and shapes, no values, no memory, in milliseconds."""
    with torch.device("meta"), _WithoutDrawing():
        return ESC(config, attention_backend=attention_backend)


class _WithoutDrawing(TorchFunctionMode):
    """Leave out random initial values: on the meta device they mean nothing.

    Not only to save the calls: the first ``normal_`` there imports torch._dynamo, which takes
    seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        if func in _DRAWING:
            return args[0] if args else named["tensor"]
        return func(*args, **named)
