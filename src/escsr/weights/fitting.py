"""Put tensors into a network, or say exactly why they do not fit."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from escsr.errors import CheckpointError
from escsr.family.configuration import ESCConfig
from escsr.model.attention_backends import AttentionBackend
from escsr.model.network import ESC
from escsr.model.openmp import allow_forks
from escsr.weights.official import to_reference

_NAMES_SHOWN = 4

Naming = Literal["ours", "reference"]

_DRAWING = (
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
    nn.init.orthogonal_,
    Tensor.normal_,
)


def build_network(
    config: ESCConfig,
    state: Mapping[str, Tensor],
    *,
    attention_backend: AttentionBackend = "sdpa",
    left_over: list[str] | None = None,
    naming: Naming = "ours",
) -> ESC:
    """Build a network around tensors, without drawing initial weights first.

    Args:
        config: of the network.
        state: tensors by our names, of any floating-point dtype; they are copied.
        attention_backend: how attention is computed.
        left_over: names that were set aside before because no ESC has them.
        naming: whose names an error is to speak of.
    Returns:
        The network in float32 on the CPU, in evaluation mode.
    Raises:
        CheckpointError: names or shapes do not fit, or a tensor holds NaN or Inf.
    """
    allow_forks()
    _require_depth(config, state)
    network = empty_network(config, attention_backend=attention_backend)
    _require_fit(network.state_dict(), state, left_over or [], naming)
    tensors = {name: _as_float32(name, tensor) for name, tensor in state.items()}
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


def _require_fit(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    left_over: list[str],
    naming: Naming,
) -> None:
    names = list(expected if naming == "ours" else to_reference(expected))
    in_file = dict(zip(expected, names, strict=True))
    missing = [in_file[name] for name in expected if name not in state]
    extra = [*left_over, *(name for name in state if name not in expected)]
    reshaped = [
        f"{in_file[name]} is {_shape(state[name])} instead of {_shape(expected[name])}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    faults = [
        f"{len(names)} {what}: {_shortened(names)}"
        for what, names in (
            ("missing", missing),
            ("left over", extra),
            ("of another shape", reshaped),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"The tensors fit no ESC. Of {len(expected)} that it needs: {'; '.join(faults)}. Give "
            "the whole state dict of one network of ESC's family."
        )


def _require_depth(config: ESCConfig, state: Mapping[str, Tensor]) -> None:
    """Refuse more layers than there are tensors, before all of them are built."""
    depth = config.num_blocks * (1 + config.num_conv_layers)
    depth += config.texture_mlp_layers if config.upsampler == "lte" else 0
    if depth > len(state):
        raise CheckpointError(
            f"The network has {depth:,} layers by its configuration, and only {len(state):,} "
            "tensors are there. The file was changed; download or copy it again."
        )


def _as_float32(name: str, tensor: Tensor) -> Tensor:
    """A copy, so that the network does not hang on a mapped file that may change or go away."""
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{name} holds {tensor.dtype}; only floating-point weights can be loaded, so give the "
            "checkpoint from before it was quantised."
        )
    copied = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
    if not torch.isfinite(copied).all():
        raise CheckpointError(
            f"{name} holds NaN or Inf: the training run diverged or the file was damaged. Give an "
            "earlier checkpoint."
        )
    return copied


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single value"


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
