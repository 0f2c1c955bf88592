"""Ways to compute window attention, all the same function; ``backends.attend`` is the one to call.

``backends`` has ``naive``, ``sdpa`` and ``auto``; ``chunked``, for training on a CPU, is beside it.
What is used only where it is asked for has its own files: ``flex``, ``flash_bias``, ``triton_*``,
and ``cuda_graphs``, which replays the launches of a whole network.
"""
