"""Which upsampler a bag of tensors has, and by how much it enlarges."""

import math
import re
from collections.abc import Mapping
from typing import Any

from escsr.errors import CheckpointError
from escsr.weights.official import RECORDED_UPSAMPLERS

Shapes = Mapping[str, tuple[int, ...]]
Found = tuple[dict[str, Any], tuple[str, ...]]
"""Fields of the configuration; those of them that no tensor tells."""

_REAL_SCALE = 4
"""ESC-Real's one factor."""
_LTE_SCALE = 4
"""ESC+LTE is trained up to this factor."""
_LDA_SCALE = 4
"""The factor that traiNNer-redux takes unless told."""


def recognise_upsampler(
    shapes: Shapes, record: Any, *, unshuffle: int, stated_scale: int | None = None
) -> Found:
    """Read the kind of upsampler and the scale.

    Args:
        shapes: of all tensors, by our names.
        record: ESC-Real-M's ``MetaUpsample``, an array, where there is one.
        unshuffle: pixels per side that become channels.
        stated_scale: from features to pixels, where a header states it.
    Raises:
        CheckpointError: shapes that no upsampler has, a record that contradicts them, or a
            DySample whose factor nothing tells.
    """
    recorded = None if record is None else _from_record(record)
    known_scale = stated_scale if recorded is None else recorded["scale"]
    fields, inner_scale, assumed = _from_shapes(shapes, known_scale, unshuffle)
    if recorded is not None:
        inner_scale = _agreed(fields, inner_scale, recorded, assumed)
        kept = ("upsampler_dim", "dysample_groups")
        fields, assumed = {**fields, **{name: recorded[name] for name in kept}}, ()
    if inner_scale % unshuffle:
        raise CheckpointError(
            f"The upsampler enlarges by {inner_scale}, but {unshuffle} pixels per side become "
            "channels first; the first must be a multiple of the second."
        )
    return {**fields, "scale": inner_scale // unshuffle}, assumed


def side_of_square(what: str, area: int) -> int:
    """The side of a square.

    Raises:
        CheckpointError: the area is no square number; says of what.
    """
    side = math.isqrt(area)
    if side * side != area:
        raise CheckpointError(f"In an ESC, {what} are a square number; here they are {area}.")
    return side


def _from_shapes(
    shapes: Shapes, known_scale: int | None, unshuffle: int
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Fields, factor from features to pixels, and what of it is assumed."""
    if "reconstruction.amplitude.weight" in shapes:
        return _lte(shapes), _LTE_SCALE, ("scale",)
    is_real = "feature_skip.expand.weight" in shapes or unshuffle > 1
    if "reconstruction.to_subpixels.weight" in shapes:
        skip = "none" if is_real else _image_skip(shapes)
        return {"upsampler": "pixelshuffledirect", "image_skip": skip}, _subpixels(shapes), ()
    if "reconstruction.sampler.offset.weight" in shapes:
        return _dysample(shapes, known_scale or _REAL_SCALE)
    if "reconstruction.attention.to_query.weight" in shapes:
        width = shapes["reconstruction.attention.to_query.weight"][1]
        fields = {"upsampler": "lda", "image_skip": "none", "upsampler_dim": width}
        return fields, known_scale or _LDA_SCALE, ("scale",)
    return _stack(shapes, known_scale, unshuffle)


def _image_skip(shapes: Shapes) -> str:
    is_decomposed = any(name.endswith("_kernel.weights.1") for name in shapes)
    return "bicubic" if is_decomposed else "nearest"


def _subpixels(shapes: Shapes) -> int:
    channels = shapes["reconstruction.to_subpixels.weight"][0]
    if channels % 3:
        raise CheckpointError(
            f"The last convolution makes {channels} channels; an ESC's makes 3 * scale^2."
        )
    return side_of_square("the last convolution's channels / 3", channels // 3)


def _lte(shapes: Shapes) -> dict[str, Any]:
    layers = len(
        [name for name in shapes if re.fullmatch(r"reconstruction\.decoder\.\d+\.weight", name)]
    )
    return {
        "upsampler": "lte",
        "image_skip": "none",
        "texture_dim": shapes["reconstruction.amplitude.weight"][0],
        "texture_mlp_dim": shapes.get("reconstruction.decoder.0.weight", (256,))[0],
        "texture_mlp_layers": layers - 1,
    }


def _dysample(shapes: Shapes, scale: int) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    channels, inner_dim = shapes["reconstruction.sampler.offset.weight"][:2]
    fields = {"upsampler": "dysample", "image_skip": "none", "upsampler_dim": inner_dim}
    groups = channels // (2 * scale**2)
    if groups and channels % (2 * scale**2) == 0 and inner_dim % groups == 0:
        return {**fields, "dysample_groups": groups}, scale, ("scale", "dysample_groups")
    # Only ESC-Real-M has other factors, and its files say which.
    candidates = ", ".join(
        f"x{scale} with {channels // (2 * scale**2)} groups"
        for scale in range(1, 9)
        if channels % (2 * scale**2) == 0
    )
    raise CheckpointError(
        f"A DySample of {channels} offsets enlarges by a factor that its tensors do not tell "
        f"(candidates: {candidates or 'none'}). Give the file as ESC-Real-M's code saved it, with "
        "its to_img.MetaUpsample."
    )


def _stack(
    shapes: Shapes, known_scale: int | None, unshuffle: int
) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Which layers are convolutions tells the kind and the number of steps."""
    pattern = r"reconstruction\.layers\.(\d+)\.weight"
    matches = (re.fullmatch(pattern, name) for name in shapes)
    places = sorted(int(match[1]) for match in matches if match is not None)
    kernels = [shapes[f"reconstruction.layers.{place}.weight"] for place in places]
    fields: dict[str, Any] = {"image_skip": "none"}
    for place, kernel in zip(places, kernels, strict=True):
        if len(kernel) != 4 or 0 in kernel:
            raise CheckpointError(
                f"reconstruction.layers.{place}.weight has the shape {kernel}; an ESC's has 4 "
                "dimensions, none empty."
            )
    if places in ([0, 1], [0, 2, 3]):
        # Their kernels have 4x4 pixels where they enlarge by 2, and 3x3 where by 3.
        scale = 4 if len(places) == 3 else 3 if kernels[0][-1] == 3 else 2
        return {**fields, "upsampler": "transpose+conv"}, scale, ()
    steps, scale_of_one_step = len(places) - 2, known_scale or (2 if unshuffle == 2 else 3)
    if "reconstruction.layers.2.gate.weight" in shapes:
        fields |= {"upsampler": "pa_up", "upsampler_dim": kernels[0][0]}
        steps = (len(places) - 1) // 2
        scale_of_one_step = known_scale or 2
    elif places[:2] == [0, 2]:
        widths = [kernel[0] for kernel in kernels]
        areas = (width // widths[0] for width in widths[1:-1])
        scale = math.prod(side_of_square("a step's subpixels", area) for area in areas)
        return {**fields, "upsampler": "pixelshuffle", "upsampler_dim": widths[0]}, scale, ()
    else:
        fields["upsampler"] = "nearest+conv" if places[0] == 1 else "conv+nearest"
    if steps < 1:
        raise CheckpointError("The upsampler has too few convolutions for one of ESC's.")
    # One step enlarges by 3 in all that was published, but 2 has the same tensors. Of "pa_up",
    # whose files have a record, 2 is usual.
    return (fields, scale_of_one_step, ("scale",)) if steps == 1 else (fields, 2**steps, ())


def _from_record(record: Any) -> dict[str, Any]:
    numbers = [int(number) for number in record.reshape(-1).tolist()]
    if len(numbers) != 7 or not 0 <= numbers[1] < len(RECORDED_UPSAMPLERS):
        raise CheckpointError(
            f"to_img.MetaUpsample holds {numbers}; ESC-Real-M's code stores seven numbers, the "
            f"second below {len(RECORDED_UPSAMPLERS)}. Download or copy the file again."
        )
    _, kind, scale, _, _, inner_dim, groups = numbers
    # One convolution without enlarging is pixelshuffledirect by 1.
    name = "pixelshuffledirect" if scale == 1 else RECORDED_UPSAMPLERS[kind]
    return {
        "upsampler": name,
        "scale": scale,
        "upsampler_dim": inner_dim,
        "dysample_groups": groups,
    }


def _agreed(
    fields: Mapping[str, Any],
    inner_scale: int,
    recorded: Mapping[str, Any],
    assumed: tuple[str, ...],
) -> int:
    """The recorded factor, if the record is of these tensors."""
    differs = recorded["upsampler"] != fields["upsampler"]
    if "scale" not in assumed:
        differs |= recorded["scale"] != inner_scale
    inner_dim = fields.get("upsampler_dim", recorded["upsampler_dim"])
    if differs or inner_dim != recorded["upsampler_dim"]:
        raise CheckpointError(
            f"to_img.MetaUpsample says {recorded['upsampler']} by {recorded['scale']} with "
            f"{recorded['upsampler_dim']} channels, the tensors say {fields['upsampler']} by "
            f"{inner_scale} with {inner_dim}. The file was changed; download or copy it again."
        )
    return recorded["scale"]
