"""Enlarge an image exactly, in whatever memory there is."""

import logging
from collections.abc import Callable, Iterator

import torch

from escsr.errors import CheckpointError, ConfigurationError, DeviceMemoryError
from escsr.inference.borders import NO_MARGINS, Margins
from escsr.inference.devices import FreedMemory, is_out_of_memory
from escsr.inference.engine import Engine
from escsr.inference.exact.body import ExactBody, num_stages
from escsr.inference.exact.colours import guard_colours
from escsr.inference.exact.cores import cut_into_cores
from escsr.inference.exact.feature_store import FeatureMapStore, FeatureStore
from escsr.inference.exact.head import ExactHead, stretches
from escsr.inference.exact.image_source import ImageSource
from escsr.inference.exact.on_core import bands_on_core
from escsr.inference.exact.plan import ExactPlan
from escsr.inference.exact.steps import EagerSteps, NotFiniteError
from escsr.inference.planes import PixelPlanes, Pixels
from escsr.inference.tiling import AxisScale, Span
from escsr.model.autocast import without_autocast
from escsr.model.network import ESC
from escsr.shapes import ImageBatch

logger = logging.getLogger("escsr")

OnShareDone = Callable[[float], None]
"""Told a share of the work, to be added up."""

_HEAD_STAGES = 2
"""What the head takes, in stages of the body."""


def enlarge_exactly(
    source: PixelPlanes,
    engine: Engine,
    plan: ExactPlan,
    *,
    output_size: tuple[int, int],
    margins: Margins = NO_MARGINS,
    dtype: torch.dtype,
    on_share_done: OnShareDone,
) -> Iterator[Pixels]:
    """Enlarge an image as the network does in one piece.

    Args:
        source: the image.
        engine: one whose network can be run layer by layer.
        plan: how to cut the image, and where its features lie.
        output_size: (width, height) of the result; of its margins, what is beyond.
        margins: of the image, which it has already, and which the result then has too.
        dtype: precision to work in; where numbers overflow, the work begins again in float32.
        on_share_done: told about the work as it is done; the shares add up to 1.
    Yields:
        (rows, W', C) of the source's dtype; together the whole result.
    Raises:
        DiskSpaceError: no room for the features.
        DeviceMemoryError: memory ran out.
        CheckpointError: NaN or Inf in float32 too.
        ConfigurationError: NaN or Inf in half precision, after rows were yielded.
    """
    try:
        scales = margins.scales((source.width, source.height), output_size)
        columns = Span(start=0, stop=scales[1].total_output)
        top = 0
        for band in exact_bands(
            source,
            engine,
            plan,
            output_size=output_size,
            margins=margins,
            dtype=dtype,
            on_share_done=on_share_done,
        ):
            rows = Span(start=top, stop=top + band.shape[2])
            top = rows.stop
            yield source.finish(source.hold_flat(source.collapse(band), rows, columns, scales))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = str(error).partition("\n")[0]
        raise DeviceMemoryError(
            f"Memory ran out with parts of {plan.tile_pixels} pixels ({failure}). Free memory, set "
            "a memory limit or a smaller tile, or do without exact results (exact=False, "
            "--no-exact)."
        ) from error


@torch.inference_mode()
def exact_bands(
    source: PixelPlanes,
    engine: Engine,
    plan: ExactPlan,
    *,
    output_size: tuple[int, int],
    margins: Margins = NO_MARGINS,
    dtype: torch.dtype,
    on_share_done: OnShareDone,
) -> Iterator[ImageBatch]:
    """What ``Engine.run`` gives for the whole image, band by band.

    Arguments and errors as of ``enlarge_exactly``.

    Yields:
        (num_images, 3, rows, W') float32 on the CPU, not clamped.
    """
    scales = margins.scales((source.width, source.height), output_size)
    if engine.core is not None and dtype == torch.float32:
        bands = bands_on_core(
            source,
            engine.core,
            plan,
            multiple=engine.multiple,
            scales=scales,
            on_share_done=on_share_done,
        )
        yield from guarded(bands, source, engine, scales)
        return
    job = _ExactJob(source, engine, plan, scales, on_share_done)
    with FeatureStore(plan.place, dtype) as store:
        try:
            with without_autocast(engine.device):
                heads = job.run_bodies(store, dtype)
        except NotFiniteError:
            if dtype == torch.float32:
                raise CheckpointError(_BROKEN) from None
            heads = None
        if heads is not None:
            yield from job.bands(heads)
            return
    logger.warning("The network gave NaN or infinite values in %s; going on in float32.", dtype)
    yield from exact_bands(
        source,
        engine,
        plan,
        output_size=output_size,
        margins=margins,
        dtype=torch.float32,
        on_share_done=lambda share: None,
    )


class _ExactJob:
    def __init__(
        self,
        source: PixelPlanes,
        engine: Engine,
        plan: ExactPlan,
        scales: tuple[AxisScale, AxisScale],
        on_share_done: OnShareDone,
    ) -> None:
        self._source, self._engine, self._plan = source, engine, plan
        self._scales = scales
        self._on_share_done = on_share_done

    def run_bodies(self, store: FeatureStore, dtype: torch.dtype) -> list[ExactHead]:
        """Work through the body, one image after another."""
        source, engine = self._source, self._engine
        network = engine.layered_network(dtype)
        images = [
            ImageSource(
                source,
                number,
                network=network,
                multiple=engine.multiple,
                dtype=dtype,
                device=engine.device,
            )
            for number in range(source.num_images)
        ]
        size, config = images[0].size, network.config
        features = [store.new_map(size, config.dim) for _ in images]
        with FeatureStore(store.place, dtype) as inner_store:
            self._run_body(network, inner_store, images, features)
        return [
            ExactHead(network, image, done, self._scales, engine.device)
            for image, done in zip(images, features, strict=True)
        ]

    def _run_body(
        self,
        network: ESC,
        store: FeatureStore,
        images: list[ImageSource],
        features: list[FeatureMapStore],
    ) -> None:
        size, config = images[0].size, network.config
        stages = num_stages(config) + _HEAD_STAGES
        share = 1 / (stages * len(images) * size[0] * size[1])
        body = ExactBody(
            network,
            EagerSteps(network),
            store,
            size=size,
            cores=cut_into_cores(
                size, core_size=self._plan.core_size, window_size=config.window_size
            ),
            device=self._engine.device,
            on_core_done=lambda pixels: self._on_share_done(pixels * share),
        )
        for image, map_of_image in zip(images, features, strict=True):
            body.run(image, map_of_image)

    def bands(self, heads: list[ExactHead]) -> Iterator[ImageBatch]:
        """From the features to rows of the result."""
        return guarded(self._bands(heads), self._source, self._engine, self._scales)

    def _bands(self, heads: list[ExactHead]) -> Iterator[ImageBatch]:
        unshuffle = heads[0].network.config.unshuffle
        height, width = (-(-axis.total_length // unshuffle) for axis in self._scales)
        rows, columns = (
            stretches(side, most)
            for side, most in zip((height, width), self._plan.head_core_size, strict=True)
        )
        network = heads[0].network
        stages = num_stages(network.config) + _HEAD_STAGES
        freed_memory = FreedMemory(self._engine.device)
        for top, bottom in rows:
            with without_autocast(self._engine.device):
                band = torch.cat([head.result((top, bottom), columns) for head in heads])
            if not bool(torch.isfinite(band).all()):
                raise _error_of_head(network.shallow.weight.dtype)
            self._on_share_done(_HEAD_STAGES / stages * (bottom - top) / height)
            freed_memory.release()
            yield band


def guarded(
    bands: Iterator[ImageBatch],
    source: PixelPlanes,
    engine: Engine,
    scales: tuple[AxisScale, AxisScale],
) -> Iterator[ImageBatch]:
    """Give bands the low frequencies of their source, where the engine does so."""
    if not engine.keeps_colours:
        return bands
    width = Span(start=0, stop=source.width)
    return guard_colours(
        bands, lambda top, bottom: source.read(Span(start=top, stop=bottom), width), scales
    )


def _error_of_head(dtype: torch.dtype) -> CheckpointError | ConfigurationError:
    """Rows may be written already, so the work does not begin again."""
    if dtype == torch.float32:
        return CheckpointError(_BROKEN)
    return ConfigurationError(
        f"The upsampler gives NaN or infinite values in {str(dtype).removeprefix('torch.')}, which "
        'showed when rows of the result were made already. Use precision="float32" '
        "(--precision float32)."
    )


_BROKEN = (
    "The network gives NaN or infinite values, so its weights are broken. Download or convert the "
    "checkpoint again, or choose another model."
)
