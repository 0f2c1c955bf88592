"""Run networks on images of any kind and size."""

from escsr.inference.file_job import UpscaleReport
from escsr.inference.one_call import upscale
from escsr.inference.progress_meter import OnProgress
from escsr.inference.upscaler import Upscaler

__all__ = ["OnProgress", "UpscaleReport", "Upscaler", "upscale"]
