"""Where a run computes, and in which precision; what is asked for and is not there is refused."""

import os
from pathlib import Path

import pytest
import torch

from escsr.errors import ConfigurationError
from escsr.training import launching
from escsr.training.launching import launch, multiplies_in_bfloat16, with_precision
from escsr.training.recipe import Recipe
from tests.training.runs import changed


def test_a_run_alone_is_one_process_on_the_device(recipe: Recipe) -> None:
    """No torchrun: no environment variables, no processes."""
    fabric = launch(recipe, device="cpu")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert fabric.device == torch.device("cpu")


def test_float16_on_a_cpu_is_refused(recipe: Recipe) -> None:
    """With what to take instead."""
    with pytest.raises(ConfigurationError, match='needs a GPU; on a CPU use "auto"'):
        launch(changed(recipe, precision="float16"), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(recipe: Recipe) -> None:
    """Rather than a run of days on the CPU."""
    with pytest.raises(ConfigurationError, match="no cuda device; use --device cpu"):
        launch(recipe, device="cuda")


def test_more_processes_than_gpus_are_refused(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how many there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match=r"has 2 cuda devices .* use --processes 2"):
        launch(recipe, device="cuda", processes=3)


def test_a_device_that_does_not_exist_is_told_with_those_that_do(recipe: Recipe) -> None:
    """A slip of the pen."""
    with pytest.raises(ConfigurationError, match="'gpu'; allowed are auto, cuda, mps, cpu"):
        launch(recipe, device="gpu")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no Linux, which names the flags")
def test_auto_is_bfloat16_where_this_processor_multiplies_in_it(recipe: Recipe) -> None:
    """By the flags that Linux names, unless PyTorch is kept from them; the reason is said."""
    flags = Path("/proc/cpuinfo").read_text().split()
    multiplies = "avx512_bf16" in flags or "amx_bf16" in flags or "bf16" in flags
    is_limited = any(
        os.environ.get(name, "").upper().startswith("AVX2")
        for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
    )
    expected = "bfloat16" if multiplies and not is_limited else "float32"
    chosen, sentence = with_precision(changed(recipe, precision="auto"), device="cpu")
    assert chosen == changed(recipe, precision=expected)
    assert sentence.startswith(f"Computing in {expected} on cpu: ")
    assert is_limited == ("keeps PyTorch from" in sentence) or not multiplies


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(recipe: Recipe, precision: str) -> None:
    """On any processor, also where it is slow."""
    asked = changed(recipe, precision=precision)
    sentence = f"Computing in {precision} on cpu, as the recipe says."
    assert with_precision(asked, device="cpu") == (asked, sentence)


@pytest.mark.parametrize(
    ("features", "machine", "reason"),
    [
        ({"avx2", "avx512_f"}, "x86_64", "does not multiply in bfloat16 (no AVX512_BF16 nor AMX"),
        ({"avx512_bf16"}, "AMD64", "multiplies in bfloat16 (AVX512_BF16)"),
        ({"amx_bf16"}, "x86_64", "multiplies in bfloat16 (AMX_BF16)"),
        ({"neon", "bf16"}, "aarch64", "multiplies in bfloat16 (BF16)"),
        ({"neon"}, "arm64", "does not multiply in bfloat16 (no BF16)"),
        ({"bf16"}, "x86_64", "does not multiply"),
        (set[str](), "s390x", "does not multiply"),
    ],
)
def test_each_processor_says_whether_it_multiplies_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, features: set[str], machine: str, reason: str
) -> None:
    """x86 and ARM, as they name themselves on Linux, Windows and macOS."""
    monkeypatch.setattr(launching, "_processor_features", lambda: features)
    monkeypatch.setattr(launching.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    multiplies, said = multiplies_in_bfloat16("cpu")
    assert reason in said
    assert multiplies == said.startswith("the processor multiplies")


@pytest.mark.parametrize(
    ("isa", "capability", "multiplies"),
    [
        ("", "AVX512", True),
        ("DEFAULT", "AVX512", True),
        ("AVX512_CORE_BF16", "AVX512", True),
        ("AVX512_CORE_AMX", "AVX512", True),
        ("AVX512_CORE", "AVX512", False),
        ("avx2", "AVX512", False),
        ("AVX2_VNNI_2", "AVX512", False),
        ("", "AVX2", False),
        ("", "DEFAULT", False),
    ],
)
def test_a_limit_below_the_processor_counts(
    monkeypatch: pytest.MonkeyPatch, isa: str, capability: str, multiplies: bool
) -> None:
    """Kept from the instructions, oneDNN emulates them, ten times slower than float32."""
    monkeypatch.setattr(launching, "_processor_features", lambda: {"avx512_bf16", "amx_bf16"})
    monkeypatch.setattr(launching.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    found, reason = multiplies_in_bfloat16("cpu")
    assert found == multiplies
    assert ("keeps PyTorch from the processor's AVX512_BF16" in reason) == (not multiplies)


@pytest.mark.parametrize(
    ("capabilities", "multiplies"),
    [([(8, 0)], True), ([(9, 0), (9, 0)], True), ([(7, 5)], False), ([(8, 6), (7, 0)], False)],
)
def test_gpus_multiply_in_bfloat16_from_compute_capability_8(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], multiplies: bool
) -> None:
    """Of several the oldest decides."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capabilities[number])
    found, reason = multiplies_in_bfloat16("cuda")
    assert found == multiplies
    assert "compute capability {}.{}".format(*min(capabilities)) in reason


def test_linux_names_the_features_of_x86_and_of_arm(tmp_path: Path) -> None:
    """What counts where PyTorch does not say; a machine without the file has none."""
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text("processor\t: 0\nmodel name\t: X: 1\nflags\t\t: fpu avx2 avx512_bf16\n")
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd4f\n")
    assert launching._features_of_linux(x86) == {"fpu", "avx2", "avx512_bf16"}
    assert launching._features_of_linux(arm) == {"fp", "asimd", "bf16"}
    assert launching._features_of_linux(tmp_path / "none") == set()
