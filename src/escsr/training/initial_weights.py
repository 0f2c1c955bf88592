"""The initial weights of a run: random, or pretrained."""

import logging
from pathlib import Path

from escsr.errors import CheckpointError, ConfigurationError, TrainingError
from escsr.model.network import ESC
from escsr.training.recipe import Recipe
from escsr.training.state import averaged_weights
from escsr.weights.box import bundled_models
from escsr.weights.loading import find_weights, load_model
from escsr.weights.rescaling import convert_scale

_log = logging.getLogger("escsr")


def start_from(
    network: ESC, recipe: Recipe, weights: Path | None, *, out: Path, is_optional: bool
) -> None:
    """Fill a network with the weights to start from; without any it stays as it is, random.

    Args:
        network: of the recipe.
        recipe: may name weights with ``starts_from``.
        weights: a file of weights, or a state of a run; None takes what ``starts_from`` names, from
            the run that lies beside ``out`` or from those included.
        out: folder of this run.
        is_optional: whether to do without where ``starts_from`` is not to be had.
    Raises:
        TrainingError: ``starts_from`` is not to be had, or the weights are of another network.
        CheckpointError: ``weights`` cannot be read.
    """
    path = weights or _find(recipe, out, is_optional=is_optional)
    if path is None:
        return
    given = _load(path, recipe)
    if given.scale != recipe.scale:
        given = convert_scale(given, scale=recipe.scale)
    if given.config != network.config:
        raise TrainingError(
            f"{path} holds another network than the recipe {recipe.name} trains: {given.config} "
            f"instead of {network.config}. Choose weights of {recipe.model}."
        )
    network.load_state_dict(given.state_dict())
    _log.info("starting from %s", path)


def located(name_or_path: str | Path, *, scale: int) -> Path:
    """The file of a network to start from; of those included, that of the scale if there is one.

    Raises:
        CheckpointError: there is no such file.
        UnknownModelError: no pretrained weights of that name are included.
    """
    try:
        path = find_weights(str(name_or_path), scale=scale)
    except (ConfigurationError, CheckpointError):
        path = find_weights(str(name_or_path))
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; give the path of a file of weights, or the name of "
            "pretrained weights that are included (escsr models lists them)."
        )
    return path


def _find(recipe: Recipe, out: Path, *, is_optional: bool) -> Path | None:
    name = recipe.starts_from
    if name is None:
        return None
    beside = out.parent / name / f"{name}.safetensors"
    if beside.exists():
        return beside
    for model in bundled_models():
        if f"{model.name}-x{model.scale}" == name:
            return model.path
    if is_optional:
        _log.warning("a real run needs the weights of %s (--from); this one starts at random", name)
        return None
    raise TrainingError(
        f"The recipe {recipe.name} starts from the weights of {name}, which are neither "
        f"included nor at {beside}. Train {name} first, or give weights with --from."
    )


def _load(path: Path, recipe: Recipe) -> ESC:
    if path.suffix == ".pt":
        averaged = averaged_weights(path)
        if averaged is not None:
            _log.warning(
                "%s is the state of a run: its averaged weights are taken, and a new run starts. "
                "To go on with that run, use --resume.",
                path,
            )
            return _of_state(averaged, recipe, path)
    return load_model(path)


def _of_state(content: tuple[int, dict], recipe: Recipe, path: Path) -> ESC:
    scale, tensors = content
    network = ESC(recipe.model_copy(update={"scale": scale}).network_config())
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is the state of another network ({reason} …).") from error
    return network
