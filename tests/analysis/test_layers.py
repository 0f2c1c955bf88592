"""Where to look in a network, and what is seen there."""

import torch
from torch import Tensor, nn

from escsr.analysis.kernels import DynamicKernels, dynamic_kernels
from escsr.analysis.layers import (
    MOST_LAYERS,
    Layer,
    as_feature_map,
    esc_layers,
    layer_label,
    look,
    main_layers,
)
from escsr.analysis.similarity import AttentionMaps, attention_maps_of
from escsr.analysis.spectrum import Spectra, spectra

from .networks import random_image, small_esc


def test_a_mixer_has_one_label_in_every_question() -> None:
    """That of the place behind it, also in ablations and inside another module."""
    for overrides, last in (({}, "2.conv2"), ({"layer_mixer": "window"}, "2.attn2")):
        network = small_esc(**overrides)
        names = [
            "blocks.0.attention",
            "blocks.1.conv_layers.1.conv_attention",
            "blocks.1.conv_layers.1.conv_attention.aggregate",
        ]
        labels = [layer_label(network, name) for name in names]
        assert labels == ["1.attn", last, last]
        wrapped = nn.Sequential(nn.Identity(), network)
        assert [layer_label(wrapped, f"1.{name}") for name in names] == labels
        assert set(labels) <= {layer.label for layer in esc_layers(network)}
        if last == "2.conv2":
            kernels = dynamic_kernels(network, [random_image()], ["one"], lambda: None)
            assert isinstance(kernels, DynamicKernels)
            assert kernels.layers == ["1.conv1", "1.conv2", "2.conv1", "2.conv2"]
        maps = attention_maps_of(network, random_image(), most_windows=1)
        assert isinstance(maps, AttentionMaps)
        assert (maps.labels[0], maps.labels[-1]) == (
            "1.attn",
            "2.attn" if last == "2.conv2" else last,
        )
        found = spectra(network, [random_image()], lambda: None)
        assert isinstance(found, Spectra)
        assert [layer.label for layer in found.layers][:2] == ["1.attn", f"1.{last[2:-1]}1"]
    assert layer_label(nn.Conv2d(3, 3, 3), "body.0") == "body.0"


def test_features_after_a_layer_hold_the_residual() -> None:
    """What the next layer is given: the features before, plus what attention returned."""
    network, image = small_esc(), random_image(16, 16)
    block = network.blocks[0]
    returned = Layer(label="branch", module=block.attention)
    layers = [*esc_layers(network)[1:3], returned]
    before, after, branch = look(network, layers, image, lambda found: found.clone())
    assert before is not None
    assert after is not None
    assert branch is not None
    torch.testing.assert_close(before + branch, after)


def test_looking_leaves_no_hook_behind() -> None:
    """And the same result comes out."""
    network, image = small_esc(), random_image(16, 16)
    expected = network(image)
    look(network, main_layers(network), image, lambda found: None)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    assert sum(hooks) == 0
    torch.testing.assert_close(network(image), expected, rtol=0, atol=0)


def test_features_of_any_layout_become_maps() -> None:
    """Channels first, channels last, tokens; other sizes are none."""
    features = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    last, tokens = features.permute(0, 2, 3, 1), features.flatten(2).transpose(1, 2)
    for given in (features, last, tokens, (tokens, None)):
        found = as_feature_map(given, (3, 4))
        assert isinstance(found, Tensor)
        torch.testing.assert_close(found, features)
    assert as_feature_map(features, (5, 4)) is None
    assert as_feature_map("words", (3, 4)) is None


def test_groups_of_blocks_are_opened() -> None:
    """A group is looked at after each of its blocks, and as a whole."""

    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    groups = [nn.Sequential(block(), block()) for _ in range(2)]
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(*groups), nn.Conv2d(4, 3, 1))
    labels = [layer.label for layer in main_layers(network)]
    assert labels == ["1", "2.1.1", "2.1.2", "2.1", "2.2.1", "2.2.2", "2.2", "2", "3"]


def test_a_layer_is_looked_at_after_its_activation() -> None:
    """The features that the next layer sees."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(), nn.Conv2d(4, 3, 1))
    assert [layer.label for layer in main_layers(network)] == ["2", "3"]


def test_very_deep_networks_are_thinned_out() -> None:
    """From the first to the last block."""
    network = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3 * MOST_LAYERS)))
    layers = main_layers(network)
    assert len(layers) == MOST_LAYERS
    assert (layers[0].label, layers[-1].label) == ("1", str(3 * MOST_LAYERS))
