"""PyTorch as an engine: any module, on any device and in any precision that torch has."""

import copy
import logging
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from escsr.core.network import Network
from escsr.engines.core_engine import CoreEngine, uses_core
from escsr.engines.cost import NetworkCost, network_cost
from escsr.engines.devices import choose_device, choose_precision
from escsr.engines.engine import Backend, Engine, EngineOptions, Floats, Precision
from escsr.engines.folding import backend_within, fold, position_rank
from escsr.engines.published import as_published
from escsr.errors import CheckpointError, ConfigurationError, EscsrError
from escsr.family.axis_view import AxisView
from escsr.family.configuration import ESCConfig
from escsr.model.attention.backends import AttentionBackend, require_available
from escsr.model.attention.cuda_graphs import GraphedNetwork
from escsr.model.autocast import without_autocast
from escsr.model.local_deformable_attention import LocalAttentionReconstruction, Stretch
from escsr.model.local_texture import LocalTextureHead
from escsr.model.network import ESC
from escsr.model.openmp import allow_forks
from escsr.model.window_attention import WindowAttention
from escsr.shapes import ImageBatch

logger = logging.getLogger("escsr")

_USUAL_ATTENTION = (None, "auto", "sdpa")
"""Choices that leave the core free to compute attention its own way."""


class TorchEngine(Engine):
    """A module of torch's; it is copied, and neither moved nor changed.

    Copies with everything derived from the weights computed once (``fold``) are made per
    precision, when first needed. Of a module that holds an ESC beside other parts, the core runs
    that ESC where it may.

    Args:
        network: (B, 3, H, W) -> (B, 3, scale*H, scale*W).
        scale: its factor.
        options: how to run it.
    Raises:
        ConfigurationError: the device or back-end is not there, or whole windows of a network that
            has none.
    """

    def __init__(
        self, network: nn.Module, *, scale: int, options: EngineOptions | None = None
    ) -> None:
        options = options or EngineOptions()
        super().__init__(_config_within(network), scale=scale, options=options)
        allow_forks()
        self.device = choose_device(options.device)
        self._device = torch.device(self.device)
        if options.attention is not None:
            require_available(options.attention, self._device)
        self._original = copy.deepcopy(network).eval().requires_grad_(False)
        self.name: Backend = "reference" if options.backend == "reference" else "eager"
        self._with_core = self._run_parts_on_core()
        if self._with_core is not None:
            self.name = "native"
        # Apple's back-end has had wrong results with channels_last.
        is_plain = self._device.type == "mps" or self.name == "reference"
        self._memory_format = torch.contiguous_format if is_plain else torch.channels_last
        self._prepared: nn.Module | None = None
        self._networks: dict[Precision, nn.Module] = {}
        self._exact: Network | None = None
        self._lock = threading.Lock()
        self._has_warned = False

    @property
    def makes_any_size(self) -> bool:
        """Whether results may have any size: an ESC+LTE itself, not a module around one."""
        return isinstance(self._original, ESC) and super().makes_any_size

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: no locks, and not the copies made for running."""
        with self._lock:
            state = self.__dict__.copy()
        del state["_lock"]
        return {**state, "_networks": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over such a state.

        Raises:
            ConfigurationError: the device is not there.
        """
        allow_forks()
        for name, value in {**state, "_lock": threading.Lock()}.items():
            setattr(self, name, value)
        choose_device(self.device)

    def choose_precision(self, *, eight_bit: bool) -> Precision:
        """As the options say."""
        return choose_precision(self.options.precision, self.device, eight_bit=eight_bit)

    def cost(self, scale: float, precision: Precision) -> NetworkCost:
        """Estimated from the configuration."""
        is_on_core = self._with_core is not None and precision == "float32"
        return network_cost(
            self.config,
            scale=scale,
            attention_backend=None if is_on_core else backend_within(self._folded),
            position_rank=0 if is_on_core else position_rank(self._folded),
            device_type=self._device.type,
        )

    def images_at_once(self, num_images: int) -> int:
        """One on a CPU: it is faster (``FoldedConvAttention``), and takes less memory."""
        return 1 if self._device.type == "cpu" else num_images

    @property
    def exact_network(self) -> Network | None:
        """An ESC itself, opened on the core; the reference is only for measuring."""
        if not isinstance(self._original, ESC) or self.name == "reference":
            return None
        with self._lock:
            if self._exact is None:
                logger.info("Exact results are made by the core, on the CPU and in float32.")
                self._exact = CoreEngine(self._original.config, _state_of(self._original)).network
            return self._exact

    def forward(
        self,
        images: ImageBatch,
        precision: Precision = "float32",
        views: tuple[AxisView, ...] | None = None,
    ) -> Tensor:
        """``run`` for tensors: the result stays on the device, and nothing is padded.

        Args:
            images: (B, 3, H, W) floating point in [0, 1], on any device.
            precision: to compute in.
            views: as of ``run``.
        Returns:
            (B, 3, scale*H, scale*W) float32 on the engine's device, not clamped.
        Raises:
            CheckpointError: NaN or Inf in float32 too.
        """
        result = self._forward(images, precision, views)
        if bool(torch.isfinite(result).all()):
            return result
        if precision != "float32":
            self._warn_of_fallback(precision)
            result = self._forward(images, "float32", views)
            if bool(torch.isfinite(result).all()):
                return result
        raise CheckpointError(
            "The network gives NaN or infinite values in float32 too, so its weights are broken. "
            "Download or convert the checkpoint again, or choose another model."
        )

    def _run(self, images: Floats, precision: Precision, views: tuple[AxisView, ...]) -> Floats:
        given = torch.from_numpy(np.require(images, requirements=["C", "W"]))  # pyright: ignore[reportUnknownMemberType]
        return self.forward(given, precision, views).cpu().numpy()

    @torch.inference_mode()
    def _forward(
        self, images: ImageBatch, precision: Precision, views: tuple[AxisView, ...] | None
    ) -> Tensor:
        dtype = getattr(torch, precision)
        with without_autocast(self._device):
            network = self._network(precision)
            moved = images.to(self._device, torch.float32)
            parts = torch.split(moved, self.images_at_once(moved.shape[0]))
            results = [self._enlarge(part.to(dtype), network, views).float() for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _enlarge(
        self, images: ImageBatch, network: nn.Module, views: tuple[AxisView, ...] | None
    ) -> Tensor:
        images = images.contiguous(memory_format=self._memory_format)
        if not isinstance(network, ESC) or not network.config.needs_position:
            return network(images)
        if views is None:
            views = tuple(
                AxisView.whole(length=side, output_length=self.scale * side)
                for side in images.shape[-2:]
            )
        return enlarge_part(network, images, views, multiple=self.multiple)

    def _run_parts_on_core(self) -> nn.Module | None:
        """A copy of a module around an ESC in which the core runs that ESC; None of others."""
        options, network = self.options, self._original
        is_wanted = options.backend in ("auto", "native") and options.attention in _USUAL_ATTENTION
        if not is_wanted or self.device != "cpu" or isinstance(network, ESC):
            return None
        try:
            return on_core(network) if is_for_core(network) else None
        except EscsrError as error:
            if options.backend == "native":
                raise
            logger.info("Running in PyTorch, as the core says: %s", error)
            return None

    @property
    def _folded(self) -> nn.Module:
        """The copy in float32 on the CPU that others are made from."""
        if self._prepared is None:
            if self.name == "reference":
                prepared = as_published(self._original)
            else:
                prepared = fold(
                    self._original,
                    attention_backend=self.options.attention,
                    flash_bias=self.options.flash_bias,
                )
            self._prepared = prepared.float()
        return self._prepared

    @property
    def attention_backend(self) -> AttentionBackend | None:
        """How attention is computed; None where there is none."""
        return backend_within(self._folded)

    def _network(self, precision: Precision) -> nn.Module:
        with self._lock:
            if precision not in self._networks:
                self._networks[precision] = self._made(precision)
            return self._networks[precision]

    def _made(self, precision: Precision) -> nn.Module:
        """A copy on the device, in a precision; on CUDA an ESC's launches are recorded."""
        if self._with_core is not None and precision == "float32":
            return self._with_core
        network = copy.deepcopy(self._folded).to(self._device, getattr(torch, precision))
        # It reaches only tensors of four dimensions: the kernels. (Torch's stub lacks it.)
        if self._memory_format == torch.channels_last:
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        # Where in the image a part lies is computed on the host.
        if self._device.type != "cuda" or not isinstance(network, ESC):
            return network
        return network if network.config.needs_position else GraphedNetwork(network)

    def _warn_of_fallback(self, precision: Precision) -> None:
        with self._lock:
            has_warned, self._has_warned = self._has_warned, True
        if not has_warned:
            logger.warning(
                "The network gave NaN or infinite values in %s; such tiles run again in float32.",
                precision,
            )


def enlarge_part(
    network: ESC, images: ImageBatch, views: tuple[AxisView, ...], *, multiple: int = 1
) -> Tensor:
    """Make a part of a result from a part of an image, where its place in the image matters.

    Args:
        network: one whose head needs it: a ``LocalTextureHead``, or "lda".
        images: (B, 3, H, W) in [0, 1], the part.
        views: of rows and of columns.
        multiple: the whole image is extended to multiples of so many pixels.
    Returns:
        (B, 3, rows, columns), not clamped: as ``views`` say, or ``scale`` times the part's.
    """
    head, features = network.reconstruction, network.features(images)
    if isinstance(head, LocalTextureHead):
        return head.enlarge_part(features, images, *views)
    assert isinstance(head, LocalAttentionReconstruction)
    rows, columns = (_stretch(view, multiple, network.config.unshuffle) for view in views)
    return head.enlarge_part(features, rows, columns)


def _stretch(view: AxisView, multiple: int, unshuffle: int) -> Stretch:
    """Where features lie along an axis; parts begin on the window grid, so on whole features."""
    extended = -(-(view.before + view.length + view.after) // multiple) * multiple
    return Stretch(start=(view.start + view.before) // unshuffle, length=-(-extended // unshuffle))


class CoreESC(nn.Module):
    """Runs in place of an ``ESC`` inside other modules: float32 on the CPU, without gradients."""

    def __init__(self, source: ESC) -> None:
        super().__init__()
        self.config, self.scale = source.config, source.scale
        self.network = Network(source.config, _state_of(source))

    def forward(self, lr_image: ImageBatch, output_size: tuple[int, int] | None = None) -> Tensor:
        """As of ``ESC``."""
        images = lr_image.detach().to("cpu", torch.float32).numpy()
        result = self.network(images, output_size, num_threads=torch.get_num_threads())
        return torch.from_numpy(result)  # pyright: ignore[reportUnknownMemberType]


def is_for_core(network: nn.Module) -> bool:
    """Whether a module is an ESC, or holds one, whose attention is computed as usual."""
    attentions = [part for part in network.modules() if isinstance(part, WindowAttention)]
    has_network = any(type(part) is ESC for part in network.modules())
    return has_network and all(part.backend in _USUAL_ATTENTION for part in attentions)


def on_core(network: nn.Module) -> nn.Module:
    """A copy of a module in which the core runs every ESC.

    Raises:
        CheckpointError, ConfigurationError: as of ``Network``.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is ESC:
                parent.add_module(name, CoreESC(child))
    return copied


def engine_of_module(
    network: nn.Module, *, scale: int, options: EngineOptions | None = None
) -> Engine:
    """The engine for a module: the core for an ESC where it may, else torch.

    Raises:
        ConfigurationError: as of the engines, or the core was asked for and cannot run it.
    """
    options = options or EngineOptions()
    if type(network) is ESC and is_for_core(network) and uses_core(options):
        return CoreEngine(network.config, _state_of(network), options)
    if options.backend == "native" and not is_for_core(network) and _holds_esc(network):
        raise ConfigurationError(
            "The back-end native computes attention in its own way, not by the network's own "
            'choice. Use backend="eager".'
        )
    return TorchEngine(network, scale=scale, options=options)


def _holds_esc(network: nn.Module) -> bool:
    return any(isinstance(part, ESC) for part in network.modules())


def _config_within(network: nn.Module) -> ESCConfig | None:
    """The configuration of the ESC in a module; None where it holds none."""
    return next((part.config for part in network.modules() if isinstance(part, ESC)), None)


def _state_of(network: nn.Module) -> dict[str, Floats]:
    """The weights of now: whoever pickles the core's network later sends these."""
    return {
        name: values.detach().to("cpu", torch.float32, copy=True).numpy()
        for name, values in network.state_dict().items()
    }
