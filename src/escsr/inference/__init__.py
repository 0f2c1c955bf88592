"""Run networks on images of any kind and size."""

from escsr.inference.enlarger import OnProgress
from escsr.inference.file_job import UpscaleReport
from escsr.inference.upscaler import Upscaler, upscale

__all__ = ["OnProgress", "UpscaleReport", "Upscaler", "upscale"]
