"""Whether one pass over an image is made exactly or in tiles."""

import logging
from typing import Literal

import torch

from escsr.errors import ConfigurationError, DeviceMemoryError, DiskSpaceError
from escsr.inference.engine import Engine
from escsr.inference.exact.plan import ExactPlan, Room, plan_exactly
from escsr.inference.memory import TileChoice, TilePlan, Workload
from escsr.inference.network_cost import NetworkCost

logger = logging.getLogger("escsr")

LEAST_DIM_ON_DISK = 48
"""Of the networks that "auto" lets keep their features on disk. Of esc-tiny, with 32 channels, that
took 1.16 to 1.24 times as long as tiles, of ESC, with 64, 1.08 times (``docs/tiles.md``)."""

ExactChoice = bool | Literal["auto"]
"""True: what the whole image gives; False: tiles; "auto": exact where it costs little more."""


def require_exact(exact: object) -> None:
    """Refuse what is no choice.

    Raises:
        ConfigurationError: neither true, false nor "auto".
    """
    if not isinstance(exact, bool) and exact != "auto":
        raise ConfigurationError(f'exact is {exact!r}; it must be True, False or "auto".')


def choose_pass(
    tiles: TilePlan,
    workload: Workload,
    engine: Engine,
    cost: NetworkCost,
    *,
    choice: ExactChoice,
    dtype: torch.dtype,
    tile: TileChoice,
    has_overlap: bool,
    room: Room,
) -> TilePlan | ExactPlan:
    """Settle one pass: an image in one piece stays as it is.

    Args:
        tiles: the plan for tiles.
        workload: the image.
        engine: the network.
        cost: of the network.
        choice: what was asked for.
        dtype: precision of the network.
        tile: side of a tile as asked for.
        has_overlap: whether an overlap of tiles was asked for.
        room: the memory there is.
    Raises:
        ConfigurationError: exactness is asked of a network that cannot be run layer by layer.
        DeviceMemoryError, DiskSpaceError: exactness is asked for, and there is no room.
    """
    if tiles.is_whole or choice is False:
        return tiles
    asks_for_tiles = has_overlap or isinstance(tile, int)
    pays = engine.device.type == "cpu" and dtype == torch.float32
    if choice == "auto" and (asks_for_tiles or not pays or not engine.is_layered):
        return tiles
    if not engine.is_layered:
        raise ConfigurationError(
            "exact is True and the image does not fit in one piece, but only a network that is an "
            'ESC can be run layer by layer, and not with the back-end "reference". Use '
            'exact=False, or tile="whole" if there is memory enough.'
        )
    assert engine.config is not None
    try:
        plan = plan_exactly(
            workload,
            engine.config,
            cost,
            multiple=engine.multiple,
            dtype=dtype,
            tile=tile,
            room=room,
        )
    except (DeviceMemoryError, DiskSpaceError) as error:
        if choice is True:
            raise
        logger.info("Tiles instead of an exact result: %s", error)
        return tiles
    is_slow = plan.place == "disk" and engine.config.dim < LEAST_DIM_ON_DISK
    return tiles if choice == "auto" and is_slow else plan
