"""A recipe is checked before anything runs, and its errors name the key and what is allowed."""

from typing import Any

import pytest

from escsr.errors import RecipeError
from escsr.family.variants import VARIANTS
from escsr.training.recipe import Recipe
from escsr.training.recipe_file import check_recipe
from tests.training.runs import RECIPE


def refusal(**values: Any) -> str:
    """What is said of the smallest recipe with these values."""
    with pytest.raises(RecipeError) as caught:
        check_recipe(RECIPE | values, origin="x.toml")
    message = str(caught.value)
    assert message.startswith("The recipe x.toml cannot be used: ")
    assert message.endswith(".")
    assert not message.endswith("..")
    return message


def test_a_recipe_needs_a_name_a_model_a_scale_and_steps() -> None:
    """All else has a default; nothing that makes the network is guessed."""
    with pytest.raises(RecipeError) as caught:
        check_recipe({}, origin="x.toml")
    for key in ("name", "model", "scale", "steps"):
        assert f"{key}: missing" in str(caught.value)
    least = {key: RECIPE[key] for key in ("name", "model", "scale", "steps")}
    assert check_recipe(least, origin="x.toml").loss.l1 == 1.0


def test_a_misspelt_key_is_told_with_the_one_that_is_near() -> None:
    """And with all that are allowed, ``base`` of the file among them."""
    message = refusal(step=3)
    assert "step: unknown key (did you mean steps?); allowed are base, name, model" in message


def test_a_misspelt_key_of_a_table_is_told_with_the_keys_of_that_table() -> None:
    """``data.batch`` is not looked for among the keys of the whole recipe."""
    message = refusal(data={"batch": 3})
    assert "data.batch: unknown key (did you mean batch_size?)" in message
    keys = "batch_size, patch_pixels, degradation, query_pixels, augmentation, share"
    assert f"allowed are {keys}" in message
    assert "licence" not in message


def test_a_key_that_resembles_none_is_told_without_a_guess() -> None:
    """The allowed ones suffice."""
    assert "zzz: unknown key; allowed are" in refusal(zzz=1)


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody wants to correct a file one run at a time."""
    message = refusal(steps=0, scale=9, precision="fp8")
    assert all(f"{key} = " in message for key in ("steps", "scale", "precision"))


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"steps": 0}, "steps = 0", "must be greater than or equal to 1"),
        ({"scale": 9}, "scale = 9", "less than or equal to 8"),
        ({"steps": "many"}, "steps = 'many'", "must be a valid integer"),
        ({"steps": 2.5}, "steps = 2.5", "must be a valid integer"),
        ({"name": "a/b"}, "name = 'a/b'", "match pattern"),
        ({"precision": "fp8"}, "precision = 'fp8'", "'float32', 'bfloat16' or 'float16'"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0", "less than 1"),
        ({"data": {"batch_size": 0}}, "data.batch_size = 0", "greater than or equal to 1"),
        ({"data": {"share": 0}}, "data.share = 0", "greater than 0"),
        ({"data": {"degradation": "bicubic"}}, "data.degradation", "'pillow-after-crop'"),
        ({"optimizer": {"learning_rate": -1}}, "optimizer.learning_rate = -1", "greater than 0"),
        ({"optimizer": {"kind": "sgd"}}, "optimizer.kind = 'sgd'", "'adamw' or 'adam'"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas", "at least 0 and below 1"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas.1", "missing"),
        ({"schedule": {"kind": "step"}}, "schedule.kind = 'step'", "'cosine', 'halving'"),
        ({"loss": {"l1": -1}}, "loss.l1 = -1", "greater than or equal to 0"),
        ({"watch": {"checkpoints_kept": 0}}, "watch.checkpoints_kept = 0", "equal to 1"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_is_allowed(
    values: dict[str, Any], key: str, reason: str
) -> None:
    """What came, and why it cannot be."""
    message = refusal(**values)
    assert key in message
    assert reason in message


def test_a_value_where_a_table_belongs_is_told_with_its_key() -> None:
    """``data = "photos"``: paths are given on the command line."""
    assert "data = 'photos': must be a table with the keys batch_size," in refusal(data="photos")


def test_an_unknown_model_is_told_with_the_known_ones() -> None:
    """The names of the variants."""
    message = refusal(model="esc-tinny")
    assert "model = 'esc-tinny': there is no such model" in message
    assert f"the names are {', '.join(VARIANTS)}" in message


def test_a_change_of_a_configuration_that_does_not_exist_is_told_with_its_fields() -> None:
    """Of the network, not of the recipe."""
    message = refusal(config={"window": 8})
    assert "config: " in message
    assert "'window'" in message
    assert "window_size" in message


def test_a_change_that_makes_no_network_is_told_with_its_reason() -> None:
    """32 channels have no 5 heads."""
    assert "config: dim is 32 and num_heads is 5" in refusal(config={"num_heads": 5})


def test_the_configuration_is_the_models_with_the_changes() -> None:
    """What is not changed is the variant's."""
    recipe = check_recipe(RECIPE, origin="x.toml")
    assert recipe.network_config().dim == 16
    assert recipe.network_config().num_heads == 2
    assert recipe.network_config().scale == 2


def test_a_loss_without_a_term_is_refused() -> None:
    """It would train nothing."""
    assert "loss: all weights are 0; give at least one term" in refusal(loss={"l1": 0})


def test_a_batch_is_a_multiple_of_its_micro_batches() -> None:
    """The message names both keys, and is not followed by the whole recipe."""
    message = refusal(optimizer={"micro_batches": 3})
    assert "data.batch_size must be a multiple of optimizer.micro_batches" in message
    assert "licence" not in message


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ({"kind": "halving"}, "halve_at is needed"),
        ({"kind": "cosine", "halve_at": [3]}, "by no other kind"),
        ({"kind": "halving", "halve_at": [4, 3]}, "halve_at must rise"),
        ({"kind": "halving", "halve_at": [3, 3]}, "halve_at must rise"),
        ({"kind": "halving", "halve_at": [3, "x"]}, "schedule.halve_at.1 = 'x'"),
    ],
)
def test_halving_is_told_where(schedule: dict[str, Any], reason: str) -> None:
    """Steps that rise, for this kind alone."""
    assert reason in refusal(schedule=schedule)


def test_query_pixels_that_nothing_uses_are_refused() -> None:
    """Whoever sets them and forgets the degradation would train something else."""
    message = refusal(data={"query_pixels": 100})
    assert 'data.query_pixels is used by data.degradation = "pillow-any-scale" alone' in message
    written_out = {"data": {"batch_size": 4, "query_pixels": 2304}}
    assert check_recipe(RECIPE | written_out, origin="x.toml").data.query_pixels == 2304


def test_a_recipe_cannot_be_changed_by_accident() -> None:
    """What is in the state of a run is what it was made with."""
    recipe = check_recipe(RECIPE, origin="x.toml")
    with pytest.raises(ValueError, match="frozen"):
        recipe.steps = 7  # pyright: ignore[reportAttributeAccessIssue]


def test_every_key_has_a_sentence_that_says_what_it_is() -> None:
    """Editors show it, from the schema."""
    fields = Recipe.model_json_schema()["properties"]
    plain = {"weight_decay", "steps", "log_every_steps", "scale"}
    bare = {key for key, field in fields.items() if "description" not in field}
    # Tables are described where they are defined.
    tables = {"data", "loss", "optimizer", "schedule", "degradation", "perceptual", "gan", "watch"}
    assert bare - plain <= tables
