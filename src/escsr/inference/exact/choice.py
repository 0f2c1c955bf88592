"""Whether one pass over an image is made exactly or in tiles."""

import torch

from escsr.errors import ConfigurationError, DeviceMemoryError, DiskSpaceError
from escsr.inference.engine import Engine
from escsr.inference.exact.on_core import plan_on_core
from escsr.inference.exact.plan import ExactPlan, plan_exactly
from escsr.inference.memory import SMALLER_TILES, Room, TileChoice, TilePlan, Workload
from escsr.inference.network_cost import NetworkCost


def require_exact(exact: object) -> None:
    """Refuse what is no choice.

    Raises:
        ConfigurationError: neither true nor false.
    """
    if not isinstance(exact, bool):
        raise ConfigurationError(f"exact is {exact!r}; it must be True or False.")


def choose_pass(
    tiles: TilePlan | DeviceMemoryError,
    workload: Workload,
    engine: Engine,
    cost: NetworkCost,
    *,
    exact: bool,
    dtype: torch.dtype,
    tile: TileChoice,
    room: Room,
) -> TilePlan | ExactPlan:
    """Settle one pass: an image in one piece stays as it is.

    Where the least tile does not fit, working layer by layer may.

    Args:
        tiles: the plan for tiles, or why there is none.
        workload: the image.
        engine: the network.
        cost: of the network.
        exact: what was asked for.
        dtype: precision of the network.
        tile: side of a tile as asked for.
        room: the memory there is.
    Raises:
        ConfigurationError: exactness is asked of a network that cannot be run layer by layer.
        DeviceMemoryError, DiskSpaceError: there is no room; or for exactness, if asked for.
    """
    if isinstance(tiles, TilePlan) and (tiles.is_whole or not exact):
        return tiles
    if not engine.is_layered:
        if isinstance(tiles, DeviceMemoryError):
            raise tiles
        raise ConfigurationError(
            "exact is True and the image does not fit in one piece, but only a network that is an "
            'ESC can be run layer by layer, and not with the back-end "reference". Use '
            'exact=False, or tile="whole" if there is memory enough.'
        )
    assert engine.config is not None
    try:
        if engine.core is not None and dtype == torch.float32:
            return plan_on_core(
                workload, engine.core, cost, multiple=engine.multiple, room=room
            )
        return plan_exactly(
            workload,
            engine.config,
            cost,
            multiple=engine.multiple,
            dtype=dtype,
            tile=tile,
            room=room,
        )
    except DeviceMemoryError as error:
        if exact or not isinstance(tiles, DeviceMemoryError):
            raise
        # Of both ways the one that needs less, but in the words of what was asked for.
        least = min(tiles.needed_bytes or 0, error.needed_bytes or 0)
        raise room.refusal(workload, cost, needed_bytes=least, advice=SMALLER_TILES) from None
    except DiskSpaceError as error:
        if exact or not isinstance(tiles, DeviceMemoryError):
            raise
        raise DeviceMemoryError(
            f"{tiles} Layer by layer it would do, but: {error}", needed_bytes=tiles.needed_bytes
        ) from error
