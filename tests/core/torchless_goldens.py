"""A program that runs golden files through ``open_network`` where torch cannot be imported.

``python torchless_goldens.py FOLDER``: the folder holds ``cases.json`` and what it names. It prints
what the core ran on, and each case with its largest difference over the one that is allowed.
"""

import json
import sys
from pathlib import Path

sys.modules["torch"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402

import escsr  # noqa: E402


def main(folder: Path) -> None:
    """Open, run and compare every case."""
    errors: dict[str, float] = {}
    instructions = ""
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        image, expected = np.load(folder / case["image"]), np.load(folder / case["expected"])
        network = escsr.open_network(folder / case["weights"], **case["told"])
        assert network.config.to_dict() == case["config"], name
        size = expected.shape[2:] if network.config.is_arbitrary_scale else None
        result = network(image, output_size=size)
        assert (result.shape, result.dtype) == (expected.shape, np.float32), name
        errors[name] = float(np.abs(result - expected).max()) / case["allowed"]
        instructions = network.instructions
    assert sys.modules["torch"] is None
    print(json.dumps({"instructions": instructions, "errors": errors}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
