"""``[degradation]`` of a recipe: Real-ESRGAN's second-order degradation, with ESC-Real's figures.

Source: Wang et al., "Real-ESRGAN", arXiv:2107.10833; ESC, arXiv:2503.06671.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from escsr.training.recipe_section import RecipeSection


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number must not be larger than the second")
    return bounds


def _odd(sides: tuple[int, int]) -> tuple[int, int]:
    if not all(side % 2 for side in sides):
        raise ValueError("both sides must be odd")
    return sides


def _summing_to_1(chances: tuple[float, ...]) -> tuple[float, ...]:
    if abs(sum(chances) - 1) > 1e-6:
        raise ValueError(f"the chances must sum to 1, not {sum(chances):g}")
    # numpy, which draws by them, allows 1.5e-8. What float64 rounds stays as it was written.
    if abs(sum(chances) - 1) < 1e-9:
        return chances
    return tuple(chance / sum(chances) for chance in chances)


_Chance = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_PositiveRange = Annotated[tuple[_Positive, _Positive], AfterValidator(_rising)]
_Level = Annotated[float, Field(ge=0)]
_LevelRange = Annotated[tuple[_Level, _Level], AfterValidator(_rising)]
_Quality = Annotated[float, Field(ge=1, le=100)]
_QualityRange = Annotated[tuple[_Quality, _Quality], AfterValidator(_rising)]
_UpTo1 = Annotated[float, Field(gt=0, le=1)]
_From1 = Annotated[float, Field(ge=1)]
_Side = Annotated[int, Field(ge=1, le=51)]


class DegradationStageRecipe(RecipeSection):
    """``[degradation.first]``: blur, resize, noise and JPEG, with ESC-Real's figures.

    Chances of resizes and of the kind of noise hold for a batch, all others for each image.
    """

    blur_chance: _Chance = 1.0
    """Of a blur at all, for the batch."""
    sinc_chance: _Chance = 0.1
    """That the kernel is a sinc, else one of ``kernel_chances``."""
    kernel_chances: Annotated[
        tuple[_Chance, _Chance, _Chance, _Chance, _Chance, _Chance], AfterValidator(_summing_to_1)
    ] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Of Gaussian, generalised Gaussian and plateau kernels, each isotropic, then anisotropic."""
    sigma: _PositiveRange = (0.2, 3.0)
    """Widths of these kernels, in pixels."""
    generalised_beta: tuple[_UpTo1, _From1] = (0.5, 4.0)
    """Exponents of generalised Gaussians: half of the draws below 1, half above."""
    plateau_beta: tuple[_UpTo1, _From1] = (1.0, 2.0)
    """Exponents of plateaus, likewise."""
    resize_chances: Annotated[tuple[_Chance, _Chance, _Chance], AfterValidator(_summing_to_1)] = (
        0.2,
        0.7,
        0.1,
    )
    """Of enlarging, shrinking, and leaving the size alone."""
    resize_range: tuple[_UpTo1, _From1] = (0.15, 1.5)
    """The smallest and the largest factor."""
    gaussian_chance: _Chance = 0.5
    """Of Gaussian noise; else it is Poisson's."""
    noise_sigma: _LevelRange = (1.0, 30.0)
    """Of Gaussian noise, of a range of 255."""
    poisson_scale: _LevelRange = (0.05, 3.0)
    """What Poisson noise is multiplied by."""
    grey_chance: _Chance = 0.4
    """That the noise of an image is the same in all channels."""
    jpeg_quality: _QualityRange = (30.0, 95.0)


class SecondDegradationStageRecipe(DegradationStageRecipe):
    """``[degradation.second]``: the same once more, a little milder."""

    blur_chance: _Chance = 0.8
    sigma: _PositiveRange = (0.2, 1.5)
    resize_chances: Annotated[tuple[_Chance, _Chance, _Chance], AfterValidator(_summing_to_1)] = (
        0.3,
        0.4,
        0.3,
    )
    resize_range: tuple[_UpTo1, _From1] = (0.3, 1.2)
    """Factors, beyond that of the LR image."""
    noise_sigma: _LevelRange = (1.0, 25.0)
    poisson_scale: _LevelRange = (0.05, 2.5)


class DegradationRecipe(RecipeSection):
    """``[degradation]``: Real-ESRGAN's, used where ``data.degradation`` is "second-order"."""

    degraded_pixels: int = Field(default=400, ge=16)
    """Side of what is cut from a photograph and degraded whole; HR patches are cut from it."""
    usm_weight: _Level = 0.5
    """Of the unsharp mask on targets and on what is degraded; 0 leaves them as they are."""
    usm_threshold: _Level = 10.0
    """Differences from the blurred image up to this are noise, not sharpened; of 255."""
    kernel_pixels: Annotated[tuple[_Side, _Side], AfterValidator(_rising), AfterValidator(_odd)] = (
        7,
        21,
    )
    """Smallest and largest side of a kernel, odd."""
    final_sinc_chance: _Chance = 0.8
    """Of a sinc filter beside the last JPEG."""
    pool_pairs: int = Field(default=180, ge=0)
    """Pairs per process from which batches are drawn, so that the images of one are degraded
    differently: at least so many, rounded up to whole batches; 0 for no pool."""
    first: DegradationStageRecipe = DegradationStageRecipe()
    second: SecondDegradationStageRecipe = SecondDegradationStageRecipe()
