"""Exact at any size: a network run layer by layer over parts, equal to the untiled result.

ConvAttention makes its small kernels from the average of the whole map. So each layer is finished
for the whole image before the next one begins; between them the features lie in memory or on disk
(``feature_store``). ``run`` is the way through, ``body`` goes over the layers, ``steps`` are what
they do to a patch, ``head`` and ``colours`` make the rows of the result; ``choice`` and ``plan``
settle all sizes before. In float32 on a CPU the core does all of it (``on_core``).
"""
