"""Image files, colour, resampling and quality metrics.

``files`` reads, ``writer`` writes row by row, ``colour``, ``resize`` and ``metrics`` compute.
Import from those modules; this package itself imports nothing, so that it stays quick.
"""
