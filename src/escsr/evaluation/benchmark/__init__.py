"""Latency and memory of networks, each in a process of its own, in turn over several rounds."""

from escsr.evaluation.benchmark.record import Benchmark, Conditions, SubjectResult
from escsr.evaluation.benchmark.rounds import BenchmarkRun
from escsr.evaluation.benchmark.subject import Subject

__all__ = ["Benchmark", "BenchmarkRun", "Conditions", "Subject", "SubjectResult"]
