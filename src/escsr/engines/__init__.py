"""Ways to run a network, behind one protocol."""

from escsr.engines.engine import Engine, EngineOptions, Precision
from escsr.engines.opening import OpenedNetwork, open_any_network

__all__ = ["Engine", "EngineOptions", "OpenedNetwork", "Precision", "open_any_network"]
