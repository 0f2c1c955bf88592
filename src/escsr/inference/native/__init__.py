"""Kernels of our own for a CPU, in C++: compiled once by the compiler of the machine, then kept.

``library`` compiles and loads them, ``calls`` gives them tensors, ``matrix`` and ``large_kernel``
prepare weights, ``layers`` and ``body`` are a network's blocks, and ``source/`` the C++.
"""
