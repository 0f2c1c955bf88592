"""Self-ensemble: the mean over the eight flips and rotations of the image."""

from dataclasses import replace

import numpy as np

from escsr.engines.engine import Engine, Floats, Precision
from escsr.family.axis_view import AxisView


def run_eight_ways(
    engine: Engine,
    images: Floats,
    precision: Precision = "float32",
    views: tuple[AxisView, ...] | None = None,
) -> Floats:
    """Ask a network about each flip and rotation of the images, and average what it gives.

    A little better and eight times slower; the result turns and flips with the image, whatever the
    network does. Arguments, result and errors as of ``Engine.run``.

    Source: Timofte et al., "Seven ways to improve example-based single image super resolution",
    CVPR 2016; the "+" behind the names of models in the field's tables.
    """
    total: Floats | None = None
    for transposed in (False, True):
        for down in (False, True):
            for across in (False, True):
                turned, turned_views = _flipped(images, 2, views) if down else (images, views)
                if across:
                    turned, turned_views = _flipped(turned, 3, turned_views)
                if transposed:
                    turned = turned.swapaxes(2, 3)
                    turned_views = None if turned_views is None else turned_views[::-1]
                result = engine.run(np.ascontiguousarray(turned), precision, turned_views)
                if transposed:
                    result = result.swapaxes(2, 3)
                result = result[:, :, :: -1 if down else 1, :: -1 if across else 1]
                total = result.copy() if total is None else np.add(total, result, out=total)
    assert total is not None
    total /= np.float32(8)
    return total


def _flipped(
    images: Floats, axis: int, views: tuple[AxisView, ...] | None
) -> tuple[Floats, tuple[AxisView, ...] | None]:
    """Images with one axis turned round, and what of the turned result they make."""
    turned = np.flip(images, axis)
    if views is None:
        return turned, None
    view = views[axis - 2]
    turned_view = replace(
        view,
        start=view.length - view.start - images.shape[axis],
        first=view.output_length - view.stop,
        stop=view.output_length - view.first,
        before=view.after,
        after=view.before,
    )
    return turned, (turned_view, views[1]) if axis == 2 else (views[0], turned_view)
