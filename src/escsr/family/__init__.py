"""The family of networks: what configures them, and their names; without torch or numpy."""

from escsr.family.configuration import ESCConfig
from escsr.family.variants import VARIANTS, variant

__all__ = ["VARIANTS", "ESCConfig", "variant"]
