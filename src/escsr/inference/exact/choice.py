"""Whether one pass over an image is made exactly or in tiles."""

import torch

from escsr.errors import ConfigurationError, DeviceMemoryError, DiskSpaceError, EscsrError
from escsr.inference.engine import Engine
from escsr.inference.exact.on_core import plan_in_memory, plan_on_core
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

    Where its features fit in memory, the core makes it row by row at no further cost, and so
    rather than in tiles. Where the least tile does not fit, working layer by layer may.

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
    if isinstance(tiles, TilePlan) and tiles.is_whole:
        return tiles
    core = engine.core if dtype == torch.float32 else None
    if core is not None and tile == "auto":
        plan = plan_in_memory(workload, core, cost, multiple=engine.multiple, room=room)
        if plan is not None:
            return plan
    if isinstance(tiles, TilePlan) and not exact:
        return tiles
    try:
        return _by_layers(workload, engine, cost, dtype=dtype, tile=tile, room=room)
    except (ConfigurationError, DeviceMemoryError, DiskSpaceError) as error:
        if exact or not isinstance(tiles, DeviceMemoryError):
            raise
        raise _neither(tiles, error, workload, cost, room) from error


def _by_layers(
    workload: Workload,
    engine: Engine,
    cost: NetworkCost,
    *,
    dtype: torch.dtype,
    tile: TileChoice,
    room: Room,
) -> ExactPlan:
    if not engine.is_layered:
        raise ConfigurationError(
            "exact is True and the image does not fit in one piece, but only a network that is an "
            'ESC can be run layer by layer, and not with the back-end "reference". Use '
            'exact=False, or tile="whole" if there is memory enough.'
        )
    if engine.core is not None and dtype == torch.float32:
        return plan_on_core(workload, engine.core, cost, multiple=engine.multiple, room=room)
    assert engine.config is not None
    return plan_exactly(
        workload,
        engine.config,
        cost,
        multiple=engine.multiple,
        dtype=dtype,
        tile=tile,
        room=room,
    )


def _neither(
    tiles: DeviceMemoryError, error: EscsrError, workload: Workload, cost: NetworkCost, room: Room
) -> DeviceMemoryError:
    """Why there is no plan at all, in the words of what was asked for."""
    if isinstance(error, DeviceMemoryError):
        # Of both ways the one that needs less.
        least = min(tiles.needed_bytes or 0, error.needed_bytes or 0)
        return room.refusal(workload, cost, needed_bytes=least, advice=SMALLER_TILES)
    if isinstance(error, DiskSpaceError):
        return DeviceMemoryError(
            f"{tiles} Layer by layer it would do, but: {error}", needed_bytes=tiles.needed_bytes
        )
    return tiles
