"""Judging a network by the field's protocol."""

from escsr.evaluation.protocol import (
    ImageQuality,
    TestPair,
    evaluate,
    evaluate_officially,
    find_test_pairs,
    mean_quality,
)

__all__ = [
    "ImageQuality",
    "TestPair",
    "evaluate",
    "evaluate_officially",
    "find_test_pairs",
    "mean_quality",
]
