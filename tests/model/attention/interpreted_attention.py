"""Errors of the Triton kernel in Triton's interpreter, as JSON: a program, for a test to start.

The interpreter must be on before Triton is imported, and stays on as long as the process lives;
other tests need Triton as it is.

    TRITON_INTERPRET=1 python -m tests.model.attention.interpreted_attention
"""

import json
import sys
from dataclasses import dataclass

import torch

from escsr.engines.eager import TorchEngine
from escsr.engines.engine import EngineOptions
from escsr.engines.folding import fold
from escsr.model import ESC
from escsr.model.attention.triton_attention import Launch
from escsr.model.attention.triton_module import TritonWindowAttention
from escsr.model.position_bias import ImplicitPositionBias, PositionFactors
from escsr.model.window_attention import WindowAttention
from escsr.weights.official import to_ours
from tests.golden_files import answer, read_golden, relative_error
from tests.model.networks import random_image, small_network


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One attention and what it is given."""

    window_size: int
    """w."""
    sides: tuple[tuple[int, int], ...]
    """Heights and widths; the largest error counts."""
    num_heads: int = 1
    """N."""
    head_dim: int = 16
    """D."""
    batch: int = 1
    """Images at once."""
    dtype: torch.dtype = torch.float32
    """Of everything but the table."""
    rank: int = 0
    """Of a factorised bias; 0 for a table."""
    has_gate: bool = False
    """ESC-RIB's."""
    channels_last: bool = True
    """How q, k and v lie in memory."""
    blocks: tuple[int, int] | None = None
    """Queries and keys at a time; fewer than a window has, so that the kernel loops."""


TINY = tuple((height, width) for height in range(1, 6) for width in range(1, 6))

CASES: dict[str, Case] = {
    "window 8": Case(window_size=8, sides=((13, 21), (16, 8)), num_heads=2, blocks=(64, 16)),
    "window 16": Case(window_size=16, sides=((17, 20),), num_heads=3, blocks=(128, 64)),
    "window 24": Case(window_size=24, sides=((25, 10),), blocks=(128, 64)),
    "window 32": Case(window_size=32, sides=((34, 5),), blocks=(256, 128)),
    "window 48": Case(window_size=48, sides=((3, 50),), blocks=(128, 256)),
    "window 64": Case(window_size=64, sides=((3, 3),), blocks=(64, 1024)),
    "an odd window": Case(window_size=5, sides=((7, 11), (5, 5)), num_heads=2, blocks=(16, 16)),
    "sides of 1 to 5 pixels": Case(window_size=8, sides=TINY),
    "a batch of three": Case(window_size=8, sides=((9, 20),), batch=3, num_heads=2),
    "8 channels": Case(window_size=8, sides=((9, 9),), num_heads=3, head_dim=8),
    "24 channels": Case(window_size=8, sides=((9, 9),), num_heads=2, head_dim=24),
    "64 channels": Case(window_size=8, sides=((9, 9),), head_dim=64),
    "float16": Case(window_size=8, sides=((13, 9),), num_heads=2, dtype=torch.float16),
    "bfloat16": Case(window_size=8, sides=((13, 9),), num_heads=2, dtype=torch.bfloat16),
    "factors": Case(window_size=16, sides=((18, 7),), num_heads=2, rank=16, blocks=(128, 64)),
    "factors of rank 5": Case(window_size=6, sides=((7, 7),), num_heads=2, rank=5),
    "factors in float16": Case(window_size=8, sides=((9, 7),), rank=16, dtype=torch.float16),
    "a gate": Case(window_size=8, sides=((13, 9),), has_gate=True),
    "channels first": Case(window_size=8, sides=((13, 9),), num_heads=2, channels_last=False),
}
"""By what is special about them."""

GOLDEN = ("esc_tiny_x2_batch3", "esc_real_m_pixelshuffle_x2", "esc_rib_strong_x2")
"""Windows of 16 and 32, and factors; the others are asked on a GPU (``test_golden``)."""


def error_of(case: Case) -> float:
    """The largest difference from naive attention in float64, as a share of the largest value."""
    torch.manual_seed(0)
    exact = _attention(case).to(case.dtype).double()
    ours = _in_triton(exact, case)
    errors = []
    for height, width in case.sides:
        features = torch.randn(case.batch, case.num_heads * case.head_dim, height, width)
        features = features.to(case.dtype)
        kind = torch.channels_last if case.channels_last else torch.contiguous_format
        attended = ours(features.contiguous(memory_format=kind))
        assert attended.dtype == case.dtype
        errors.append(relative_error(attended.double(), exact(features.double())))
    return max(errors)


def _attention(case: Case) -> WindowAttention:
    """As the formula says, with a bias that matters."""
    position_bias = None
    if case.rank:
        position_bias = ImplicitPositionBias(
            case.num_heads, case.window_size, rank=case.rank, hidden_dim=8, frequencies=3
        )
    attention = WindowAttention(
        case.num_heads * case.head_dim,
        window_size=case.window_size,
        num_heads=case.num_heads,
        position_bias=position_bias,
        has_gate=case.has_gate,
        backend="naive",
    )
    for parameter in attention.position_bias.parameters():
        torch.nn.init.normal_(parameter)
    return attention


def _in_triton(exact: WindowAttention, case: Case) -> TritonWindowAttention:
    parent = torch.nn.Sequential(exact)
    ours = fold(parent, attention_backend="triton").to(case.dtype).get_submodule("0")
    assert isinstance(ours, TritonWindowAttention)
    if case.blocks is not None:
        queries, keys = case.blocks
        ours.launch = Launch(block_queries=queries, block_keys=keys, num_warps=4, num_stages=1)
    has_factors = isinstance(ours.position_bias(), PositionFactors)
    assert has_factors == (case.rank > 0)
    return ours


def error_of_golden(name: str) -> float:
    """A whole folded network against a recording of the reference."""
    golden = read_golden(name)
    network = ESC(golden.config).eval()
    network.load_state_dict(to_ours(golden.reference_state))
    return relative_error(answer(fold(network, attention_backend="triton"), golden), golden.output)


def difference_of_an_engine() -> float:
    """An engine of the back-end beside the network itself."""
    network = small_network()
    lr_image = random_image(1, 3, 9, 7)
    options = EngineOptions(device="cpu", attention="triton")
    engine = TorchEngine(network, scale=2, options=options)
    return relative_error(engine.forward(lr_image), network(lr_image))


@torch.no_grad()
def main() -> None:
    """Print the errors by name."""
    errors = {name: error_of(case) for name, case in CASES.items()}
    errors |= {name: error_of_golden(name) for name in GOLDEN}
    errors["an engine"] = difference_of_an_engine()
    json.dump(errors, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
