"""What the Triton kernel compiles to without a GPU, as JSON: a program, for a test to start.

python -m tests.model.attention.compiled_attention
"""

# pyright: reportMissingImports=false

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
import triton.backends.nvidia.driver as nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from escsr.model.attention.triton_attention import Launch, choose_launch
from escsr.model.attention.triton_kernel import window_attention_kernel

CASES: dict[str, dict[str, Any]] = {
    "8.0 float16": {"capability": 80, "dtype": "fp16"},
    "9.0 float16": {"capability": 90, "dtype": "fp16"},
    "9.0 bfloat16, window 48": {"capability": 90, "dtype": "bf16", "window_size": 48},
    "9.0 float32": {"capability": 90, "dtype": "fp32"},
    "8.9 float32, 64 channels": {"capability": 89, "dtype": "fp32", "head_dim": 64},
    "9.0 float32 in TF32": {"capability": 90, "dtype": "fp32", "precision": "tf32"},
    "9.0 float32 in three products": {"capability": 90, "dtype": "fp32", "precision": "tf32x3"},
    "9.0 float16, factors": {"capability": 90, "dtype": "fp16", "window_size": 64, "rank": 16},
}
"""Heads of 16 channels, a table, and windows of 32 unless something else is said."""


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Triton's names and PyTorch's."""


def compiled(
    *,
    capability: int,
    dtype: str,
    window_size: int = 32,
    head_dim: int = 16,
    precision: str = "ieee",
    rank: int = 0,
) -> dict[str, float]:
    """Compile with the default launch, as for a map in channels_last."""
    launch = choose_launch(_DTYPES[dtype], window_size, head_dim)
    constants = {
        "NUM_HEADS": 4,
        "WINDOW": window_size,
        "HEAD_DIM": head_dim,
        "HEAD_BLOCK": max(16, head_dim),
        "RANK": rank,
        "RANK_BLOCK": 16,
        "HAS_BIAS": rank == 0,
        "BLOCK_Q": launch.block_queries,
        "BLOCK_K": launch.block_keys,
        "PRECISION": precision,
        "IN_ASSEMBLY": True,
        "WIDEN": False,
        "qkv_stride_c": 1,
        "out_stride_c": 1,
    }
    names = window_attention_kernel.arg_names
    signature = {name: _type_of(name, dtype, constants) for name in names}
    aligned = [i for i, name in enumerate(names) if "stride" in name or signature[name][0] == "*"]
    source = ASTSource(
        fn=window_attention_kernel,
        signature=signature,
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "enable_fp_fusion": True,
    }
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return _figures(kernel, launch)


def _type_of(name: str, dtype: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in ("qkv", "out", "query_factors", "key_factors"):
        return f"*{dtype}"
    return {"bias": "*fp32", "scale": "fp32"}.get(name, "i32")


def _figures(kernel: Any, launch: Launch) -> dict[str, float]:
    scores = launch.block_queries * launch.block_keys / (32 * launch.num_warps)
    return {
        "scores_per_thread": scores,
        "exponentials": len(re.findall(r"\bex2\.approx", kernel.asm["ptx"])),
        "spilled_bytes": _stack_bytes(kernel.asm["cubin"]),
        "shared_bytes": kernel.metadata.shared,
    }


def _stack_bytes(cubin: bytes) -> int:
    """What a thread keeps in memory for want of registers."""
    assert nvidia.__file__ is not None
    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(tool), "-res-usage", str(file)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"STACK:(\d+)", told)
    assert found is not None
    return int(found[1])


def main() -> None:
    """Print the figures by name."""
    json.dump({name: compiled(**case) for name, case in CASES.items()}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
