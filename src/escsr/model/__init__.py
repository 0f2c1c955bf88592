"""The network: its configuration, its parts, its cost."""

from escsr.model.complexity import count_macs, count_parameters
from escsr.model.config import ESCConfig
from escsr.model.network import ESC
from escsr.model.variants import VARIANTS, variant

__all__ = ["ESC", "VARIANTS", "ESCConfig", "count_macs", "count_parameters", "variant"]
