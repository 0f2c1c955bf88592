"""Weights files of escsr's, written byte by byte: whole, or damaged in one place."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from escsr.family import ESCConfig
from escsr.family.weight_shapes import weight_shapes

TORCH_NAMES = {
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F64": "torch.float64",
}
"""Types by their names in safetensors files, as the checksum names them."""

SMALL: dict[str, Any] = {
    **dict(scale=2, dim=16, pdim=4, num_blocks=1, num_conv_layers=1, window_size=8, num_heads=2),
    **dict(large_kernel_size=5),
}
"""One block, 4 K parameters."""

RELATIVES: dict[str, dict[str, Any]] = {
    "esc": SMALL,
    "fp": {
        **SMALL,
        **dict(large_kernel="decomposed", image_skip="bicubic", norm_before_last_conv=True),
        **dict(norm_in_conv_layers=True, first_expansion=1.5),
    },
    "real": {**SMALL, **dict(upsampler="nearest+conv", image_skip="none", feature_skip=True)},
    "real-m": {
        **SMALL,
        **dict(upsampler="conv+nearest", image_skip="none", feature_skip=True),
        **dict(unshuffle=2),
    },
    "real-dysample": {
        **SMALL,
        **dict(upsampler="dysample", upsampler_dim=16, image_skip="none", feature_skip=True),
    },
    "real-m-lda": {
        **SMALL,
        **dict(upsampler="lda", upsampler_dim=8, image_skip="none", unshuffle=2),
    },
    "ablation": {
        **SMALL,
        **dict(first_mixer="convolution", layer_mixer="window", large_kernel_size=3),
        **dict(share_large_kernel=False, dynamic_kernel=False, dim=12, pdim=5),
    },
    "rib": {
        **SMALL,
        **dict(position_bias="implicit", position_rank=4, attention_gate=True),
    },
    "lte": {
        **SMALL,
        **dict(upsampler="lte", image_skip="none", texture_dim=8, texture_mlp_dim=8),
        **dict(texture_mlp_layers=1),
    },
}
"""Small networks whose arrays have all the names there are."""


def random_arrays(configuration: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of the names and shapes that a configuration asks for, float32."""
    chance = np.random.default_rng(seed)
    return {
        name: chance.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in weight_shapes(ESCConfig(**configuration)).items()
    }


def stored(array: np.ndarray, kind: str) -> bytes:
    """The bytes of an array of float32 as another type."""
    if kind == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[kind]).tobytes()


def rounded(array: np.ndarray, kind: str) -> np.ndarray:
    """What comes back: float32."""
    content = stored(array, kind)
    if kind == "BF16":
        whole = np.frombuffer(content, "<u2").astype("<u4") << 16
        return whole.view("<f4").reshape(array.shape)
    types = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
    return np.frombuffer(content, types[kind]).astype(np.float32).reshape(array.shape)


def entries_of(arrays: Mapping[str, np.ndarray], kind: str = "F32") -> tuple[dict[str, Any], bytes]:
    """What a header says of arrays, and their bytes."""
    entries: dict[str, Any] = {}
    data = b""
    for name, array in arrays.items():
        content = stored(array, kind)
        offsets = [len(data), len(data) + len(content)]
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += content
    return entries, data


def checksum(entries: Mapping[str, Any], data: bytes) -> str:
    """As ``escsr.weights.store`` makes it."""
    digest = hashlib.sha256()
    for name, entry in sorted(entries.items()):
        begin, end = entry["data_offsets"]
        kind = TORCH_NAMES.get(entry["dtype"], entry["dtype"])
        digest.update(f"{name} {kind} {entry['shape']}\n".encode())
        digest.update(data[begin:end])
    return digest.hexdigest()


def metadata_of(
    configuration: Mapping[str, Any], entries: Mapping[str, Any], data: bytes
) -> dict[str, str]:
    """What escsr's files state about themselves, as far as the core reads it."""
    return {
        "format": "pt",
        "escsr.format": "1",
        "escsr.config": json.dumps(dict(configuration)),
        "escsr.licence": 'CC0-1.0 "é" \n',
        "escsr.sha256": checksum(entries, data),
    }


def assembled(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    """A file of a header and what follows it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


Parts = tuple[dict[str, Any], dict[str, Any], bytes]
"""A header's metadata and entries, and the data."""


def parts_of(
    configuration: Mapping[str, Any], arrays: Mapping[str, np.ndarray], kind: str = "F32"
) -> Parts:
    """Of a whole file, to be damaged before they are joined."""
    entries, data = entries_of(arrays, kind)
    return metadata_of(configuration, entries, data), entries, data


def joined(parts: Parts) -> bytes:
    """The file."""
    metadata, entries, data = parts
    return assembled({"__metadata__": metadata, **entries}, data)


def weights_file(
    configuration: Mapping[str, Any], arrays: Mapping[str, np.ndarray], kind: str = "F32"
) -> bytes:
    """A whole file."""
    return joined(parts_of(configuration, arrays, kind))
