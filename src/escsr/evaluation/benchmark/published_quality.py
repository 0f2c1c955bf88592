"""Y-PSNR in dB that papers give for networks whose weights are not at hand."""

from escsr.evaluation.benchmark.record import Quality

_SETS: tuple[str, ...] = ("Set5", "Set14", "B100", "Urban100", "Manga109")

_OURS: dict[tuple[str, int], tuple[float, ...]] = {
    ("esc", 2): (38.35, 34.11, 32.41, 33.46, 39.54),
    ("esc", 3): (34.84, 30.74, 29.34, 29.28, 34.66),
    ("esc", 4): (32.68, 28.93, 27.80, 27.07, 31.54),
    ("esc-light", 2): (38.24, 33.98, 32.35, 33.05, 39.33),
    ("esc-light", 4): (32.52, 28.87, 27.72, 26.76, 31.26),
    ("esc-fp", 2): (38.27, 34.09, 32.37, 33.22, 39.40),
    ("esc-fp", 4): (32.56, 28.87, 27.75, 26.90, 31.40),
    ("esc-rib", 4): (32.82, 29.06, 27.87, 27.59, 31.93),
}
"""Source: ESC, arXiv:2503.06671, table 1; ESC-RIB (DFLIP): arXiv:2603.06738."""

_URBAN100: dict[tuple[str, int], float] = {
    ("swinir-light", 4): 26.47,
    ("atd-light", 4): 26.97,
    ("rcan", 4): 26.82,
}
"""Source: ESC, arXiv:2503.06671, table 1."""


def published_quality(name: str, scale: int) -> Quality | None:
    """What is published of a variant or a rival; None where we know of nothing."""
    if (name, scale) in _OURS:
        figures = dict(zip(_SETS, _OURS[name, scale], strict=True))
        return Quality(psnr_db=figures, origin="published")
    if (name, scale) in _URBAN100:
        return Quality(psnr_db={"Urban100": _URBAN100[name, scale]}, origin="published")
    return None
