"""``escsr upscale --backend``: how the network runs."""

import numpy as np
import torch
from numpy.typing import NDArray

from escsr.engines.core_engine import available_backends
from escsr.images.files import read_image

from .conftest import Escsr, MakePicture


def test_the_backend_is_as_asked_and_told(
    upscale: Escsr, make_picture: MakePicture, quiet_again: None
) -> None:
    """With ``-v`` the log says which runs; results differ by rounding, one step of 255 at most."""
    photo = make_picture(width=40, height=24)
    pixels: dict[str, NDArray[np.int16]] = {}
    for name, obstacle in available_backends(torch.device("cpu")).items():
        output = photo.with_name(f"{name}.png")
        result = upscale(photo, "-o", output, "--device", "cpu", "--backend", name, "-v")
        if obstacle is not None:
            assert result.exit_code == 2
            assert obstacle in result.stderr
            continue
        assert result.exit_code == 0
        assert f"on cpu with the back-end {name}" in result.stderr
        pixels[name] = read_image(output).pixels.astype(np.int16)
    for other in pixels.values():
        assert abs(other - pixels["eager"]).max() <= 1


def test_an_unknown_backend_is_refused(
    upscale: Escsr, make_picture: MakePicture, quiet_again: None
) -> None:
    """With those that there are."""
    result = upscale(make_picture(), "--backend", "fastest")
    assert result.exit_code == 2
    assert "allowed are auto, native, eager, reference" in result.stderr
