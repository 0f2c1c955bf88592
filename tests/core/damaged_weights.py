"""Weights files, damaged at random but repeatably.

``python -m tests.core.damaged_weights FOLDER COUNT`` writes some, for a program that opens them.
"""

import json
import random
import sys
from pathlib import Path

from tests.core.weights_files import (
    RELATIVES,
    Parts,
    assembled,
    checksum,
    joined,
    parts_of,
    random_arrays,
)
from tests.mutation import mutated


def write_damaged_files(folder: Path, count: int) -> None:
    """Write whole files of each relative, and damaged ones."""
    wholes = whole_parts()
    for name, parts in wholes.items():
        (folder / f"whole-{name}.safetensors").write_bytes(joined(parts))
    for case in range(count):
        content = damaged_file(wholes, random.Random(case))
        (folder / f"damaged-{case:05d}.safetensors").write_bytes(content)


def whole_parts() -> dict[str, Parts]:
    """Of a file of each relative, by its name, in all types."""
    kinds = ("F32", "F16", "BF16", "F64")
    return {
        name: parts_of(configuration, random_arrays(configuration, seed), kinds[seed % 4])
        for seed, (name, configuration) in enumerate(RELATIVES.items())
    }


def damaged_file(wholes: dict[str, Parts], chance: random.Random) -> bytes:
    """Damaged anywhere, in its header, or whole as a container but with other contents."""
    parts = wholes[chance.choice(list(wholes))]
    match chance.randrange(3):
        case 0:
            return mutated(joined(parts), chance)
        case 1:
            return _with_damaged_header(joined(parts), chance)
        case _:
            return _with_damaged_parts(parts, chance)


def _with_damaged_header(content: bytes, chance: random.Random) -> bytes:
    """Another header of the right length."""
    size = int.from_bytes(content[:8], "little")
    return assembled(mutated(content[8 : 8 + size], chance), content[8 + size :])


def _with_damaged_parts(parts: Parts, chance: random.Random) -> bytes:
    """A file that is whole as a container: another configuration, names, shapes or values."""
    metadata, entries, data = dict(parts[0]), dict(parts[1]), parts[2]
    name = chance.choice(list(entries))
    match chance.randrange(5):
        case 0:
            text = mutated(metadata["escsr.config"].encode(), chance)
            metadata["escsr.config"] = text.decode(errors="replace")
        case 1:
            configuration = json.loads(metadata["escsr.config"])
            field = chance.choice(list(configuration))
            configuration[field] = chance.choice([0, 1, 2, 3, 4, 7, 16, 30, 2**31, -1, 1.5, True])
            metadata["escsr.config"] = json.dumps(configuration)
        case 2:
            data = mutated(data, chance)[: len(data)].ljust(len(data), b"\0")
        case 3:
            entries[name.replace(".", chance.choice([":", "..", "é", ""]), 1)] = entries.pop(name)
        case _:
            shape = list(entries[name]["shape"])
            chance.shuffle(shape)
            entries[name] = {**entries[name], "shape": shape}
    metadata["escsr.sha256"] = checksum(entries, data)
    return joined((metadata, entries, data))


if __name__ == "__main__":
    write_damaged_files(Path(sys.argv[1]), int(sys.argv[2]))
