"""The network: its configuration, its parts, its cost.

``ConvAttention``, ``SharedLargeKernel`` and ``WindowAttention`` serve other networks too:
``docs/examples/denoise_grey.py``.
"""

from escsr.family.complexity import count_macs
from escsr.family.configuration import ESCConfig
from escsr.family.variants import VARIANTS, variant
from escsr.model.convolutional_attention import ConvAttention, SharedLargeKernel
from escsr.model.network import ESC, count_parameters
from escsr.model.window_attention import WindowAttention

__all__ = [
    "ESC",
    "VARIANTS",
    "ConvAttention",
    "ESCConfig",
    "SharedLargeKernel",
    "WindowAttention",
    "count_macs",
    "count_parameters",
    "variant",
]
