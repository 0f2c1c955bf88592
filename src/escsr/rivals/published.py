"""Rivals by name: the configurations of their papers, built from spandrel with random weights.

Speed does not depend on weights. What a network derives from the size of its image alone, such as
masks of shifted windows, is made once, when it is built.
"""

# It may not be installed, and it has no types.
# pyright: basic, reportMissingImports=false, reportMissingTypeStubs=false

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from escsr.errors import ConfigurationError, MissingExtraError
from escsr.rivals.rivals import Rival

_TOLERANCE = 0.002
"""Papers round to thousands, and some cut instead."""

Build = Callable[[int, int, int], nn.Module]
"""(scale, height, width of the LR image) -> the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRival:
    """A network of others, and what is published of it."""

    architecture: str
    build: Build
    thousands: dict[int, float] = field(default_factory=dict[int, float])
    """Published number of parameters by scale, in thousands; empty where none is known to us."""
    source: str
    """Where configuration and number stand."""


class RememberedMask(nn.Module):
    """A mask of shifted windows that is the same at each call; it moves with its network.

    Args:
        mask: as the network computes it for the one size of image.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = nn.Buffer(mask)

    def recall(self, *_: object, **__: object) -> Tensor:
        """The mask, whatever is asked."""
        return self.mask


def build_rival(name: str, *, scale: int, height: int, width: int) -> Rival:
    """Build a rival for images of one size.

    Args:
        name: a key of ``PUBLISHED_RIVALS``; case and underscores do not matter.
        scale: upscaling factor per side.
        height: of the LR image, in pixels.
        width: likewise.
    Raises:
        ConfigurationError: no such rival, not at this scale, or it has another number of
            parameters than its paper says.
        MissingExtraError: spandrel or torchvision is not installed.
    """
    key = rival_key(name)
    published = PUBLISHED_RIVALS[key]
    if published.thousands and scale not in published.thousands:
        raise ConfigurationError(
            f"{key} is known at {', '.join(f'x{s}' for s in published.thousands)}, not at "
            f"x{scale}. Choose one of these, or leave it out."
        )
    try:
        network = published.build(scale, height, width).eval().requires_grad_(False)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{key} comes from spandrel, which needs {error.name}: pip install 'escsr[rivals]'"
        ) from error
    parameters = sum(parameter.numel() for parameter in network.parameters())
    _require_count(key, parameters, published.thousands.get(scale))
    return Rival(
        name=key,
        network=network,
        scale=scale,
        architecture=published.architecture,
        parameters=parameters,
        sha256=None,
    )


def is_rival_name(name: str) -> bool:
    """Whether a text names a rival, also one that had to be left out."""
    key = _normalised(name)
    return key in PUBLISHED_RIVALS or key in LEFT_OUT


def rival_key(name: str) -> str:
    """The key of ``PUBLISHED_RIVALS``.

    Raises:
        ConfigurationError: no such rival, or one that had to be left out; the message says why.
    """
    key = _normalised(name)
    if key in LEFT_OUT:
        raise ConfigurationError(f"{key} is left out: {LEFT_OUT[key]}.")
    if key not in PUBLISHED_RIVALS:
        raise ConfigurationError(
            f"There is no rival named {name!r}; the names are {', '.join(PUBLISHED_RIVALS)}. For "
            "others give a file of weights, or module:callable."
        )
    return key


def _normalised(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def _require_count(key: str, parameters: int, thousands: float | None) -> None:
    if thousands is None or abs(parameters / 1000 - thousands) <= _TOLERANCE * thousands:
        return
    raise ConfigurationError(
        f"{key} has {parameters:,} parameters as spandrel builds it, and {thousands:,g} thousand "
        "by its paper, so it is another network. Install another spandrel, or give a file."
    )


def _swinir_light(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.SwinIR import SwinIR

    # Each block keeps the mask of this size as a buffer, and makes one at each call for any other.
    build: Any = SwinIR
    return build(
        img_size=(_multiple(height, 8), _multiple(width, 8)),
        window_size=8,
        embed_dim=60,
        depths=(6, 6, 6, 6),
        num_heads=(6, 6, 6, 6),
        mlp_ratio=2.0,
        upsampler="pixelshuffledirect",
        upscale=scale,
    )


def _atd_light(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.ATD import ATD

    network = ATD(
        embed_dim=48,
        depths=(6, 6, 6, 6),
        num_heads=(4, 4, 4, 4),
        window_size=16,
        category_size=128,
        num_tokens=64,
        reducted_dim=8,
        convffn_kernel_size=7,
        mlp_ratio=1.0,
        upsampler="pixelshuffledirect",
        upscale=scale,
    )
    return _remembering(network, [_multiple(height, 16), _multiple(width, 16)])


def _hat(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.HAT import HAT

    size = (_multiple(height, 16), _multiple(width, 16))
    build: Any = HAT
    network = build(
        img_size=size,
        window_size=16,
        compress_ratio=3,
        squeeze_factor=30,
        embed_dim=180,
        depths=(6,) * 6,
        num_heads=(6,) * 6,
        mlp_ratio=2,
        upscale=scale,
    )
    return _remembering(network, size, dtype=torch.float32)


def _craft(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.CRAFT import CRAFT

    return CRAFT(upscale=scale)


def _plksr(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.PLKSR import PLKSR

    return PLKSR(dim=64, n_blocks=28, kernel_size=17, ccm_type="DCCM", upscaling_factor=scale)


def _span(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.SPAN import SPAN

    network: Any = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=52, upscale=scale).eval()
    # Its branches are added up into one convolution here, as its authors deploy it, rather than
    # at each call.
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "Conv3XC":
                child.update_params()
                parent.add_module(name, child.eval_conv)
    return network


def _rcan(scale: int, height: int, width: int) -> nn.Module:
    from spandrel.architectures.RCAN import RCAN

    return RCAN(scale=scale, n_resgroups=10, n_resblocks=20, n_feats=64, reduction=16)


def _remembering(network: Any, size: Any, **options: Any) -> nn.Module:
    """Let a network keep the mask that it would otherwise make at each call."""
    network.remembered_mask = RememberedMask(network.calculate_mask(size, **options))
    # A method of a submodule, so that a copy of the network has its own.
    network.calculate_mask = network.remembered_mask.recall
    return network


def _multiple(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


PUBLISHED_RIVALS: dict[str, PublishedRival] = {
    "swinir-light": PublishedRival(
        architecture="SwinIR",
        build=_swinir_light,
        thousands={2: 910, 3: 918, 4: 930},
        source="arXiv:2108.10257; numbers as in arXiv:2503.06671, table 1",
    ),
    "atd-light": PublishedRival(
        architecture="ATD",
        build=_atd_light,
        thousands={2: 753, 3: 760, 4: 769},
        source="arXiv:2401.08209, table 3",
    ),
    "craft": PublishedRival(
        architecture="CRAFT",
        build=_craft,
        thousands={2: 737, 3: 744, 4: 753},
        source="arXiv:2308.05022, table 1",
    ),
    "plksr": PublishedRival(
        architecture="PLKSR",
        build=_plksr,
        source="arXiv:2404.11848, and the layout of its authors' checkpoints",
    ),
    "span": PublishedRival(
        architecture="SPAN",
        build=_span,
        thousands={2: 481, 4: 498},
        source="arXiv:2311.12770, table 2; deployed, each block's branches added up",
    ),
    "rcan": PublishedRival(
        architecture="RCAN",
        build=_rcan,
        thousands={2: 15445, 3: 15629, 4: 15592},
        source="arXiv:1807.02758; numbers as in arXiv:2503.06671",
    ),
    "hat": PublishedRival(
        architecture="HAT",
        build=_hat,
        thousands={2: 20625, 3: 20809, 4: 20773},
        source="arXiv:2205.04437",
    ),
}
"""Name -> network."""

LEFT_OUT: dict[str, str] = {
    "omnisr": "spandrel's class has 805,376 parameters at x4 and the paper says 792 thousand; give "
    "a file of weights, which is measured as it is",
    "srformer-light": "spandrel has no SRFormer; write a function that builds it, and give "
    "module:callable",
    "elan-light": "spandrel has no ELAN; write a function that builds it, and give module:callable",
    "hit-srf": "spandrel has no HiT-SR; write a function that builds it, and give module:callable",
}
"""Name -> why it is not in the table."""
