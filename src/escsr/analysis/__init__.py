"""What a trained network does inside: its features, attention, reach, kernels and spectra.

``run.analyse`` is the way in; each file beside it answers one question of the paper's motivation.
"""
