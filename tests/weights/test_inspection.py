"""The checkpoint doctor."""

import json
from pathlib import Path

import pytest
import torch

from escsr.errors import CheckpointError
from escsr.family.variants import variant_scales
from escsr.model import ESC, VARIANTS, ESCConfig, variant
from escsr.weights import (
    Provenance,
    inspect_checkpoint,
    load_model,
    save_reference_weights,
    save_weights,
)
from escsr.weights.header import hash_tensors
from escsr.weights.inspection import config_parameters, variant_name
from golden_files import read_golden


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_variant_is_recognised_by_its_configuration(name: str) -> None:
    """At every scale it is published for, and others; one number off and it has no name."""
    # Beyond its own scale the restorer is ESC-Real-M with another upsampler.
    others = (1,) if name == "esc-real-m-conv" else (3, 4)
    for scale in {*variant_scales(name), *others}:
        assert variant_name(variant(name, scale=scale)) == name
        assert variant_name(variant(name, scale=scale, num_conv_layers=6)) is None


def test_a_name_does_not_depend_on_what_its_upsampler_has_no_use_for() -> None:
    """traiNNer-redux records 64 channels within, ESC-Real-M 48, whether there are any or not."""
    for name in ("esc-real-m", "esc-real-m-transpose-conv"):
        for inner_dim in (48, 64):
            assert variant_name(variant(name, scale=4, upsampler_dim=inner_dim)) == name
    assert variant_name(variant("esc-real-m-lda", scale=4, upsampler_dim=48)) is None


def test_a_reference_file_is_described(tmp_path: Path) -> None:
    """Name, scale, size and cost as published (149.2 G); no licence, since it states none."""
    path = tmp_path / "esc.pth"
    save_reference_weights(path, ESC(ESCConfig()))
    report = inspect_checkpoint(path)
    assert (report.variant, report.scale, report.parameters) == ("esc", 4, 967_500)
    assert report.macs == pytest.approx(149.2e9, rel=0.005)  # published, to three digits
    assert report.file_format == "reference names, PyTorch, state dict params_ema"
    assert report.dtype == "float32"
    assert report.header is None


def test_our_file_is_described(our_file: Path, provenance: Provenance) -> None:
    """With everything its header says; a network of no name is called none."""
    report = inspect_checkpoint(our_file)
    assert report.variant is None
    assert report.header is not None
    assert report.header.provenance == provenance
    assert report.file_format == "escsr, safetensors"
    assert report.sha256 == report.header.sha256
    assert report.parameters == config_parameters(report.config)


def test_the_hash_is_that_of_the_weights_not_of_the_container(tmp_path: Path) -> None:
    """The same network in the reference's file and in ours has one identity."""
    golden = read_golden("esc_tiny_x2")
    reference, ours = tmp_path / "reference.pth", tmp_path / "ours.safetensors"
    torch.save(golden.reference_state, reference)
    network = load_model(reference)
    save_weights(
        ours,
        network,
        provenance=Provenance(licence="MIT", training_data="none", date="2025-11-20"),
    )
    expected = hash_tensors(network.state_dict())
    assert inspect_checkpoint(reference).sha256 == inspect_checkpoint(ours).sha256 == expected


def test_half_precision_is_seen(tmp_path: Path, small_network: ESC, provenance: Provenance) -> None:
    """The dtype of the file, not of the loaded network."""
    path = tmp_path / "half.safetensors"
    save_weights(path, small_network, provenance=provenance, dtype=torch.float16)
    assert inspect_checkpoint(path).dtype == "float16"


def test_a_report_is_plain_json(our_file: Path) -> None:
    """Every value survives the way through JSON."""
    entries = inspect_checkpoint(our_file).to_dict()
    assert json.loads(json.dumps(entries)) == entries


def test_what_cannot_be_loaded_gets_no_report(tmp_path: Path) -> None:
    """A report means that the file can be used."""
    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="Not an ESC"):
        inspect_checkpoint(path)
