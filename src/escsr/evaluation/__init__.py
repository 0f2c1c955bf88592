"""Judging networks by the field's protocol."""

from escsr.evaluation.comparison import Comparison, Conditions, Entrants, compare, enter
from escsr.evaluation.protocol import (
    ImageQuality,
    evaluate,
    evaluate_officially,
    mean_quality,
)
from escsr.evaluation.test_sets import TestPair, TestSet, find_test_pairs, find_test_set

__all__ = [
    "Comparison",
    "Conditions",
    "Entrants",
    "ImageQuality",
    "TestPair",
    "TestSet",
    "compare",
    "enter",
    "evaluate",
    "evaluate_officially",
    "find_test_pairs",
    "find_test_set",
    "mean_quality",
]
