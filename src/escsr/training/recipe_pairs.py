"""The training pairs that a recipe asks for."""

from collections.abc import Callable, Sequence
from pathlib import Path

from escsr.training.arbitrary_scale.queries import QuerySettings
from escsr.training.arbitrary_scale.query_source import QuerySource
from escsr.training.data.pairs import PairSource, open_pairs
from escsr.training.recipe import Recipe


def open_recipe_pairs(
    recipe: Recipe,
    data: Path | str | Sequence[Path | str],
    *,
    image_limit: int | None = None,
    cache_bytes: int | None = None,
    on_loaded: Callable[[int, int], None] = lambda _done, _total: None,
) -> PairSource:
    """Open a training set as ``[data]`` of a recipe says.

    Args:
        recipe: gives scale, seed, batch size, patches, degradation, augmentation and share.
        data: folders, files or patterns, as for ``open_pairs``.
        image_limit: use only the first so many images.
        cache_bytes: memory for decoded images, or for shards; half of what is free unless given.
        on_loaded: called with (done, total) while images are decoded, or shards counted.
    Raises:
        TrainingError, MissingExtraError: as ``open_pairs``.
    """
    chosen = recipe.data
    source = open_pairs(
        data,
        scale=recipe.scale,
        patch_pixels=chosen.patch_pixels,
        batch_size=chosen.batch_size,
        seed=recipe.seed,
        degradation=chosen.degradation,
        augmentation=chosen.augmentation,
        degraded_pixels=recipe.degradation.degraded_pixels,
        share=chosen.share,
        image_limit=image_limit,
        cache_bytes=cache_bytes,
        on_loaded=on_loaded,
    )
    if chosen.degradation != "pillow-any-scale":
        return source
    settings = QuerySettings(
        patch_pixels=chosen.patch_pixels,
        largest_scale=recipe.scale,
        queries=chosen.query_pixels,
    )
    return QuerySource(source, settings, batch_size=chosen.batch_size, seed=recipe.seed)
