"""Kernels of our own for a CPU, in C++: built with the package, or compiled on the machine once.

``compiling`` and ``library`` make and load them, ``calls`` gives them tensors, ``maps`` are what
they read and write, ``matrix`` and ``large_kernel`` prepare weights, ``convolution``, ``layers``
and ``body`` are a network's parts, and ``source/`` the C++.
"""
