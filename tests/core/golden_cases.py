"""Golden files for ``run_cases.c``: a network in our format, an image and the result, all bare.

Run ``python -m tests.core.golden_cases FOLDER [NAME...]`` to write them by hand.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from escsr.weights import Provenance
from escsr.weights.official import to_ours
from escsr.weights.store import save_state
from tests.golden_files import SMALL_GOLDEN, read_golden_arrays, tolerance

_NOBODYS = Provenance(licence="CC0-1.0", training_data="none", date="2026-11-20")


def write_golden_cases(folder: Path, names: Sequence[str] = SMALL_GOLDEN) -> None:
    """Write NAME.safetensors, NAME.image and NAME.expected of each, and the list ``cases.txt``.

    Images are float32, (3, H, W); of a batch the first. The list has the sizes of the image and of
    the result, and the largest difference that is allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for name in names:
        golden = read_golden_arrays(name)
        state = to_ours(golden.reference_state)
        save_state(folder / f"{name}.safetensors", golden.config, state, provenance=_NOBODYS)
        image, expected = golden.input[0], golden.output[0]
        allowed = tolerance(golden) * float(np.abs(golden.output).max())
        if golden.config.is_arbitrary_scale:  # recorded between normalisation and its inverse
            image, expected, allowed = image * 0.5 + 0.5, expected * 0.5 + 0.5, allowed * 0.5
        image.astype("<f4").tofile(folder / f"{name}.image")
        expected.astype("<f4").tofile(folder / f"{name}.expected")
        sizes = (*image.shape[1:], *expected.shape[1:])
        lines.append(" ".join([name, *map(str, sizes), f"{allowed:.9g}"]))
    (folder / "cases.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    write_golden_cases(Path(sys.argv[1]), sys.argv[2:] or SMALL_GOLDEN)
