"""The body of a network, layer by layer over a whole image."""

from collections.abc import Callable

import torch

from escsr.family.configuration import ESCConfig
from escsr.inference.devices import FreedMemory
from escsr.inference.exact.feature_store import FeatureMapStore, FeatureStore
from escsr.inference.exact.image_source import ImageSource
from escsr.inference.exact.patch import Patch, Rectangle
from escsr.inference.exact.steps import NotFiniteError, Opened, OpenMixer, Steps, Unmixed
from escsr.model.convolutional_attention import DYNAMIC_KERNEL_SIZE
from escsr.model.network import ESC

OnCoreDone = Callable[[int], None]
"""Told the number of pixels of the map that one layer is done with."""

INNER_SLACK = 2
"""How far a layer looks around in the inner features: its feed-forward, and a gate, one pixel each.
"""


class ExactBody:
    """Runs the blocks of a network, and holds two maps between its layers.

    A ConvAttention is cut in two. The first half adds what its 1x1 makes of the untouched channels
    to the residual, keeps the channels to be convolved, and sums them up. The second half, when the
    sums of the whole image are known, convolves, mixes and adds; and goes on with the first half of
    the next layer, so that each layer reads and writes its maps once. Equal to ``ESC.features`` up
    to the order of sums.
    """

    def __init__(
        self,
        network: ESC,
        steps: Steps,
        store: FeatureStore,
        *,
        size: tuple[int, int],
        cores: list[Rectangle],
        device: torch.device,
        on_core_done: OnCoreDone,
    ) -> None:
        """Prepare the maps between the layers; ``run`` may be called for several images.

        Args:
            network: folded.
            steps: its parts.
            store: where the maps between the layers lie.
            size: (height, width) of the maps.
            cores: of the maps, worked on one at a time.
            device: of the network.
            on_core_done: told about each core of each of ``num_stages``.
        """
        self._network, self._steps, self._device = network, steps, device
        self._cores, self._on_core_done = cores, on_core_done
        self._freed_memory = FreedMemory(device)
        config = network.config
        self._inner = store.new_map(size, config.dim, slack=INNER_SLACK)
        slack = convolved_slack(config)
        self._convolved = store.new_map(size, steps.convolved_dim, slack=slack)

    def run(self, image: ImageSource, features: FeatureMapStore) -> None:
        """Make what the last block gives of an image.

        Args:
            image: what the body reads.
            features: (height, width, C), where the result goes.
        Raises:
            NotFiniteError: a layer's statistics or a block's result are not finite.
            DiskSpaceError: the disk is full.
        """
        for core in self._cores:
            entered = image.entered(core.grown(1, image.size))
            features.write(entered.apply(self._network.shallow, radius=1).crop(core))
        for number in range(self._network.config.num_blocks):
            mixer = self._enter(number, features)
            for layer in range(self._network.config.num_conv_layers):
                mixer = self._pass_layer(number, layer, mixer)
            self._leave(number, features, mixer)

    def _enter(self, number: int, features: FeatureMapStore) -> OpenMixer | None:
        """From a block's input to its first mixer."""
        steps = self._steps
        mixer = steps.open_mixer(number, None)
        margin = steps.margin(number, None)

        def enter(core: Rectangle) -> Opened:
            patch = features.read(core.grown(margin, features.size), self._device)
            return steps.enter(number, patch, core)

        self._replace(enter, mixer)
        return mixer

    def _pass_layer(self, number: int, layer: int, earlier: OpenMixer | None) -> OpenMixer | None:
        """The mixer before, which is open or done, and the layer up to its own mixer."""
        steps = self._steps
        mixer = steps.open_mixer(number, layer)
        margin = steps.margin(number, layer)

        def pass_layer(core: Rectangle) -> Opened:
            inner, unmixed = self._read(core, margin, earlier)
            return steps.pass_layer(number, layer, inner, unmixed, core)

        self._replace(pass_layer, mixer)
        return mixer

    def _leave(self, number: int, features: FeatureMapStore, earlier: OpenMixer | None) -> None:
        """From the last mixer to a block's result, which takes the place of its input."""
        for core in self._cores:
            inner, unmixed = self._read(core, 1, earlier)
            change = self._steps.leave(number, inner, unmixed).crop(core)
            left = features.read(core, self._device).plus(change)
            if not bool(torch.isfinite(left.features).all()):
                raise NotFiniteError
            features.write(left)
            self._on_core_done(core.num_pixels)
        self._freed_memory.release()

    def _replace(self, make: Callable[[Rectangle], Opened], mixer: OpenMixer | None) -> None:
        """Replace both maps core by core, in the order that they ask for."""
        in_reverse = self._inner.is_replaced_in_reverse
        for core in reversed(self._cores) if in_reverse else self._cores:
            kept, to_convolve = make(core)
            self._inner.write_successor(kept)
            if mixer is not None:
                assert to_convolve is not None
                mixer.take(to_convolve)
                self._convolved.write_successor(to_convolve)
            self._on_core_done(core.num_pixels)
        self._inner.replace()
        self._convolved.replace()
        if mixer is not None:
            mixer.close()
        self._freed_memory.release()

    def _read(
        self, core: Rectangle, margin: int, mixer: OpenMixer | None
    ) -> tuple[Patch, Unmixed | None]:
        """The inner features around a core, and what the mixer before has yet to add there."""
        size = self._inner.size
        inner = self._inner.read(core.grown(margin, size), self._device)
        if mixer is None:
            return inner, None
        place = core.grown(margin + mixer.reach, size)
        convolved = self._convolved.read(place, self._device)
        attended = convolved.apply(mixer.convolve, radius=mixer.reach).crop(inner.place)
        return inner, (mixer, attended)


def convolved_slack(config: ESCConfig) -> int:
    """How many pixels readers look around in the map of channels to be convolved."""
    reach = config.large_kernel_size // 2
    if config.dynamic_kernel:
        reach = max(reach, DYNAMIC_KERNEL_SIZE // 2)
    return reach + INNER_SLACK


def num_stages(config: ESCConfig) -> int:
    """How often a whole map is worked through."""
    return config.num_blocks * (2 + config.num_conv_layers)
