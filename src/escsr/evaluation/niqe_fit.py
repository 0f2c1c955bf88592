"""Fit the parameters of NIQE: the statistics of good photographs."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from escsr.errors import ImageValueError
from escsr.evaluation.niqe import PatchStatistics, describe_patches, fit_gaussian
from escsr.evaluation.niqe_parameters import NUM_FEATURES, NiqeParameters
from escsr.shapes import ImageBatch

SHARPNESS_THRESHOLD = 0.75
"""Patches less sharp than this share of their image's sharpest are left out: what lies out of
focus, and skies, says little of quality."""


def fit_niqe_parameters(
    photographs: Iterable[ImageBatch], *, provenance: Mapping[str, str]
) -> NiqeParameters:
    """Fit the Gaussian of the sharp patches of good photographs.

    Args:
        photographs: each (1, 3, H, W) in [0, 1], at least two patches of 96x96; undistorted.
        provenance: what to say of them: source, licence. How many photographs and patches there
            were is added.
    Raises:
        ImageSizeError, ImageValueError: a photograph cannot be used; see ``niqe``.
        ImageValueError: not more patches than features, so that there is no covariance.
    Source: Mittal, Soundararajan, Bovik 2013, section II.
    """
    of_each = [_sharp_features(describe_patches(photograph)) for photograph in photographs]
    num_patches = sum(len(features) for features in of_each)
    if num_patches <= NUM_FEATURES:
        raise ImageValueError(
            f"{len(of_each)} photographs have {num_patches} sharp patches; to fit NIQE more than "
            f"{NUM_FEATURES} are needed, and thousands are better. Add photographs."
        )
    mean, covariance = fit_gaussian(torch.cat(of_each))
    counts = {"photographs": str(len(of_each)), "patches": str(num_patches)}
    return NiqeParameters(
        mean=mean,
        covariance=covariance,
        provenance={**provenance, **counts},
    )


def _sharp_features(patches: PatchStatistics) -> Tensor:
    is_sharp = patches.sharpness > SHARPNESS_THRESHOLD * patches.sharpness.max()
    return patches.features[is_sharp]
