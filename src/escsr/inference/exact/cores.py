"""How a map is cut into the parts that are worked on one at a time."""

import math
from collections.abc import Iterator
from itertools import pairwise

from escsr.inference.exact.patch import Rectangle


def cut_into_cores(
    size: tuple[int, int], *, core_size: tuple[int, int], window_size: int
) -> list[Rectangle]:
    """Cut a map into parts that touch and do not overlap, in reading order.

    Parts begin on the grid of attention windows, so that each window lies in one of them. A last
    window that is not whole goes to the part before it: there it finds what it is extended with by
    reflection, which can reach a window back.

    Args:
        size: (height, width) of the map.
        core_size: (height, width) of a part, rounded to whole windows; the last of a row or column
            may be longer by less than a window.
        window_size: in pixels of the map.
    """
    rows, columns = (
        list(_spans(length, core, window_size))
        for length, core in zip(size, core_size, strict=True)
    )
    return [
        Rectangle(top=top, bottom=bottom, left=left, right=right)
        for top, bottom in rows
        for left, right in columns
    ]


def _spans(length: int, core: int, window_size: int) -> Iterator[tuple[int, int]]:
    windows = max(1, length // window_size)
    count = math.ceil(windows / max(1, core // window_size))
    edges = [index * windows // count * window_size for index in range(count)] + [length]
    return pairwise(edges)
