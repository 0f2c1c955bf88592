"""Upscale images and files of any kind and size."""

from escsr.upscaling.files import UpscaleReport
from escsr.upscaling.progress import OnProgress
from escsr.upscaling.upscaler import Upscaler, upscale

__all__ = ["OnProgress", "UpscaleReport", "Upscaler", "upscale"]
