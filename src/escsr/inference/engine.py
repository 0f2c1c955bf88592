"""One network on one device: folded, in the precision asked for, and watched for NaN."""

import copy
import logging
import threading
from typing import Any, Literal, get_args

import torch
from torch import nn

from escsr.core.network import Network
from escsr.errors import CheckpointError, ConfigurationError, EscsrError
from escsr.family.axis_view import AxisView
from escsr.family.configuration import ESCConfig
from escsr.inference.backends import Backend, BackendChoice, accelerate, choose_backend, prepare
from escsr.inference.colour_guard import keep_colours
from escsr.inference.core_network import CoreESC, is_for_core, on_core
from escsr.inference.devices import choose_device
from escsr.inference.folding import backend_within, fold, position_rank
from escsr.model.attention.backends import AttentionBackend, FoldedBackend, require_available
from escsr.model.attention.flash_bias import RankRule
from escsr.model.autocast import without_autocast
from escsr.model.local_deformable_attention import LocalAttentionReconstruction, Stretch
from escsr.model.local_texture import LocalTextureHead
from escsr.model.network import ESC
from escsr.model.openmp import allow_forks
from escsr.model.padding import reflect_pad_to_multiple
from escsr.shapes import ImageBatch

__all__ = ["Engine", "ImagePadding", "fold"]

ImagePadding = Literal["none", "window"]
"""Whether an image is extended to whole attention windows before the network sees it."""

logger = logging.getLogger("escsr")


class Engine:
    """Runs one network; may be used from several threads.

    Folded copies are made once per precision, when first needed.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        scale: int,
        device: torch.device,
        backend: BackendChoice = "auto",
        attention_backend: FoldedBackend | None = None,
        flash_bias: RankRule | None = None,
        keep_colours: bool = False,
        padding: ImagePadding = "none",
    ) -> None:
        """Prepare a network; it is copied, and neither moved nor changed.

        Args:
            network: (B, 3, H, W) -> (B, 3, scale*H, scale*W).
            scale: its factor.
            device: where to run it.
            backend: how to run it.
            attention_backend: replaces the network's own choice.
            flash_bias: the rank of "flashbias".
            keep_colours: give results the low frequencies of their source.
            padding: "window" extends an image at the bottom and right by reflection to whole
                windows and crops the result, as the reference's tester does.
        Raises:
            ConfigurationError: no such padding or back-end, the back-end cannot run here, or
                whole windows of a network that has none.
        """
        allow_forks()
        self.scale = scale
        self.device = device
        self.config = _config_within(network)
        self.makes_any_size = isinstance(network, ESC) and network.config.is_arbitrary_scale
        self._keep_colours = keep_colours
        self._multiple = _multiple_to_pad_to(padding, self.config)
        self._choice: BackendChoice = backend
        if attention_backend is not None:
            require_available(attention_backend, device)
        self._original = copy.deepcopy(network).eval().requires_grad_(False)
        self._attention: FoldedBackend | None = attention_backend
        self._flash_bias = flash_bias
        self._prepared: nn.Module | None = None
        self.backend: Backend = choose_backend(backend, device)
        self._on_core: nn.Module | None = None
        if self.backend == "native":
            self._open_core()
        # Apple's back-end has had wrong results with channels_last.
        is_plain = device.type == "mps" or self.backend == "reference"
        self._memory_format = torch.contiguous_format if is_plain else torch.channels_last
        self._networks: dict[torch.dtype, nn.Module] = {}
        self._layered: dict[torch.dtype, nn.Module] = {}
        self._lock = threading.Lock()
        self._told_of_fallback = False

    def _open_core(self) -> None:
        """Let the core run an ESC whose attention nobody wants computed in another way."""
        is_usual = self._attention in (None, "auto", "sdpa")
        if is_usual and is_for_core(self._original):
            try:
                self._on_core = on_core(self._original)
            except EscsrError as error:
                if self._choice == "native":
                    raise
                logger.info("Running with the back-end eager, as the core says: %s", error)
        elif self._choice == "native" and not is_usual:
            raise ConfigurationError(
                f"The back-end native computes attention in its own way, not by {self._attention}. "
                'Leave attention_backend out, or use backend="eager".'
            )
        if self._on_core is None and _config_within(self._original) is not None:
            self.backend = "eager"

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: no locks, and not the copies made for running."""
        with self._lock:
            state = self.__dict__.copy()
        del state["_lock"]
        return {**state, "_networks": {}, "_layered": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over such a state.

        Raises:
            ConfigurationError: the device is not there, or the back-end cannot run here.
        """
        allow_forks()
        self.__dict__.update(state, _lock=threading.Lock())
        choose_device(self.device)
        choose_backend(self._choice, self.device)

    def run(
        self,
        lr_image: ImageBatch,
        dtype: torch.dtype,
        views: tuple[AxisView, ...] | None = None,
    ) -> ImageBatch:
        """Enlarge a batch.

        A result with NaN or Inf, which half precision can give, is made again in float32.

        Args:
            lr_image: (B, 3, H, W) floating point in [0, 1], on any device.
            dtype: precision to work in.
            views: which rows and columns of a whole result to make, where the network makes any
                size, and where in the image the batch lies, where the result depends on it ("lda").
                Unless given, the batch is whole images, and results what ``scale`` says.
        Returns:
            (B, 3, scale*H, scale*W) float32 on the engine's device, not clamped.
        Raises:
            CheckpointError: NaN or Inf in float32 too.
        """
        result = self._forward(lr_image, dtype, views)
        if bool(torch.isfinite(result).all()):
            return result
        if dtype != torch.float32:
            self._tell_of_fallback(dtype)
            result = self._forward(lr_image, torch.float32, views)
            if bool(torch.isfinite(result).all()):
                return result
        raise CheckpointError(
            "The network gives NaN or infinite values in float32 too, so its weights are broken. "
            "Download or convert the checkpoint again, or choose another model."
        )

    @property
    def core(self) -> Network | None:
        """The network as the core runs it, where it does so in float32."""
        return self._on_core.network if isinstance(self._on_core, CoreESC) else None

    @property
    def attention_backend(self) -> AttentionBackend | None:
        """How attention is computed in PyTorch; None where it is not."""
        return None if self._on_core is not None else backend_within(self._folded)

    @property
    def position_rank(self) -> int:
        """The largest rank of position factors in PyTorch; 0 where biases are whole."""
        return 0 if self._on_core is not None else position_rank(self._folded)

    @property
    def _folded(self) -> nn.Module:
        """The copy for PyTorch, made when it is first needed."""
        if self._prepared is None:
            backend: Backend = "eager" if self.backend == "native" else self.backend
            self._prepared = prepare(
                self._original,
                backend,
                attention_backend=self._attention,
                flash_bias=self._flash_bias,
            ).float()
        return self._prepared

    @property
    def keeps_colours(self) -> bool:
        """Whether results get the low frequencies of their source."""
        return self._keep_colours

    @property
    def multiple(self) -> int:
        """An image is extended to multiples of so many pixels before the network sees it."""
        return self._multiple

    @property
    def is_layered(self) -> bool:
        """Whether ``layered_network`` has one; the reference is only for measuring."""
        return isinstance(self._original, ESC) and self.backend != "reference"

    def layered_network(self, dtype: torch.dtype) -> ESC:
        """The network with its blocks and layers, whatever the back-end.

        It is shared, so leave it as it is.
        """
        with self._lock:
            if dtype not in self._layered:
                self._layered[dtype] = self._moved(dtype)
            network = self._layered[dtype]
        assert isinstance(network, ESC), "whoever asks has looked at is_layered"
        return network

    def images_at_once(self, num_images: int) -> int:
        """How many images of a batch go through the network together.

        One on a CPU: ConvAttention then has a faster way (``FoldedConvAttention``), and memory is
        saved.
        """
        return 1 if self.device.type == "cpu" else num_images

    @torch.inference_mode()
    def _forward(
        self, lr_image: ImageBatch, dtype: torch.dtype, views: tuple[AxisView, ...] | None
    ) -> ImageBatch:
        with without_autocast(self.device):
            network = self._network(dtype)
            moved = lr_image.to(self.device, torch.float32)
            parts = torch.split(moved, self.images_at_once(moved.shape[0]))
            results = [self._enlarge(part, network, dtype, views) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)

    def _enlarge(
        self,
        lr_image: ImageBatch,
        network: nn.Module,
        dtype: torch.dtype,
        views: tuple[AxisView, ...] | None,
    ) -> ImageBatch:
        """Pad, run, crop, guard: float32 in, float32 out, ``dtype`` in between."""
        padded = reflect_pad_to_multiple(lr_image, self._multiple).to(dtype)
        padded = padded.contiguous(memory_format=self._memory_format)
        if isinstance(network, CoreESC):
            result = self._by_core(network, padded, views or _whole_views(lr_image, self.scale))
        elif isinstance(network, ESC) and network.config.needs_position:
            views = views or _whole_views(lr_image, self.scale)
            result = enlarge_part(network, padded, views, multiple=self._multiple)
        else:
            result = network(padded)
        if not self.makes_any_size:
            height, width = (self.scale * side for side in lr_image.shape[-2:])
            result = result[..., :height, :width]
        result = result.float()
        return keep_colours(result, lr_image, views=views) if self._keep_colours else result

    def _by_core(
        self, network: CoreESC, lr_image: ImageBatch, views: tuple[AxisView, ...]
    ) -> ImageBatch:
        """What the core makes; it does not know where in an image a part for "lda" lies."""
        if network.config.is_arbitrary_scale:
            return network.enlarge_part(lr_image, *views)
        sides = zip(views, lr_image.shape[-2:], strict=True)
        if not network.config.needs_position or all(
            view.before + view.length + view.after <= side for view, side in sides
        ):
            return network(lr_image)
        return enlarge_part(
            self.layered_network(torch.float32), lr_image, views, multiple=self._multiple
        )

    def _network(self, dtype: torch.dtype) -> nn.Module:
        with self._lock:
            if dtype not in self._networks:
                self._networks[dtype] = self._made(dtype)
            return self._networks[dtype]

    def _made(self, dtype: torch.dtype) -> nn.Module:
        if self._on_core is not None and dtype == torch.float32:
            return self._on_core
        return accelerate(self._moved(dtype))

    def _moved(self, dtype: torch.dtype) -> nn.Module:
        """A copy on the device, in a precision."""
        moved = copy.deepcopy(self._folded).to(self.device, dtype)
        # It reaches only tensors of four dimensions: the kernels. (Torch's stub lacks it.)
        if self._memory_format == torch.channels_last:
            moved.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return moved

    def _tell_of_fallback(self, dtype: torch.dtype) -> None:
        with self._lock:
            told, self._told_of_fallback = self._told_of_fallback, True
        if not told:
            logger.warning(
                "The network gave NaN or infinite values in %s; such tiles run again in float32.",
                str(dtype).removeprefix("torch."),
            )


def require_padding(padding: str) -> None:
    """Refuse an unknown name.

    Raises:
        ConfigurationError: no such padding.
    """
    if padding not in get_args(ImagePadding):
        raise ConfigurationError(
            f"padding is {padding!r}; allowed are {', '.join(get_args(ImagePadding))}."
        )


def enlarge_part(
    network: ESC, lr_image: ImageBatch, views: tuple[AxisView, ...], *, multiple: int = 1
) -> ImageBatch:
    """Make a part of a result from a part of an image, where its place in the image matters.

    Args:
        network: one whose head needs it: a ``LocalTextureHead``, or "lda".
        lr_image: (B, 3, H, W) in [0, 1], the part.
        views: of rows and of columns.
        multiple: the whole image is extended to multiples of so many pixels.
    Returns:
        (B, 3, rows, columns), not clamped: as ``views`` say, or ``scale`` times the part's.
    """
    head, features = network.reconstruction, network.features(lr_image)
    if isinstance(head, LocalTextureHead):
        return head.enlarge_part(features, lr_image, *views)
    assert isinstance(head, LocalAttentionReconstruction)
    rows, columns = (_stretch(view, multiple, network.config.unshuffle) for view in views)
    return head.enlarge_part(features, rows, columns)


def _stretch(view: AxisView, multiple: int, unshuffle: int) -> Stretch:
    """Where features lie along an axis; parts begin on the window grid, so on whole features."""
    extended = -(-(view.before + view.length + view.after) // multiple) * multiple
    return Stretch(start=(view.start + view.before) // unshuffle, length=-(-extended // unshuffle))


def _whole_views(lr_image: ImageBatch, scale: int) -> tuple[AxisView, ...]:
    return tuple(
        AxisView.whole(length=side, output_length=scale * side) for side in lr_image.shape[-2:]
    )


def _multiple_to_pad_to(padding: ImagePadding, config: ESCConfig | None) -> int:
    require_padding(padding)
    if padding == "none":
        return 1
    if config is None:
        raise ConfigurationError(
            'padding is "window", but the network holds no ESC, so it has no attention windows; '
            'use padding="none".'
        )
    return config.window_pixels


def _config_within(network: nn.Module) -> ESCConfig | None:
    """The configuration of the ESC in a module; None where it holds none."""
    for module in network.modules():
        if isinstance(module, ESC):
            return module.config
    return None
