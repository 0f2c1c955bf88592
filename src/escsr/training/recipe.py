"""A training run as data: everything that shapes the result, and no path."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from escsr.errors import ConfigurationError
from escsr.family.configuration import ESCConfig
from escsr.family.variants import VARIANTS, variant
from escsr.training.adversarial.gan_recipe import GanRecipe, PerceptualRecipe
from escsr.training.adversarial.perceptual import LEAST_PERCEPTUAL_PIXELS
from escsr.training.data.patches import Augmentation, Degradation
from escsr.training.degradation.degradation_recipe import DegradationRecipe
from escsr.training.optimizers import OptimizerKind
from escsr.training.recipe_section import Decays, RecipeSection


class DataRecipe(RecipeSection):
    """``[data]``: how photographs become batches."""

    batch_size: int = Field(default=16, ge=1)
    """Pairs per optimiser step, over all processes and micro-batches."""
    patch_pixels: int = Field(default=64, ge=8)
    """Side of an LR patch, in pixels."""
    degradation: Degradation = "matlab"
    """How LR is made: of the whole image by MATLAB's bicubic rule on uint8; of each HR crop, by
    the same rule or by Pillow's bicubic (the paper's DFLIP); of HR crops from the same size to
    ``scale`` times as large, by Pillow's (ESC+LTE); or as ``[degradation]`` says."""
    query_pixels: int = Field(default=2304, ge=1)
    """Pixels of each HR crop that "pillow-any-scale" compares."""
    augmentation: Augmentation = "flips-rotations"
    """What is done to both patches of a pair, at random."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the images that is used, chosen at random from the seed."""


class LossRecipe(RecipeSection):
    """``[loss]``: the weight of each term, on RGB in [0, 1]; terms left out have weight 0."""

    l1: float = Field(default=0.0, ge=0)
    """Mean absolute difference."""
    l2: float = Field(default=0.0, ge=0)
    """Mean squared difference."""
    charbonnier: float = Field(default=0.0, ge=0)
    """Mean of sqrt(d^2 + 1e-6): L1 that is smooth at 0."""
    fft: float = Field(default=0.0, ge=0)
    """Mean absolute difference of the spectra (real and imaginary parts, not normalised)."""
    perceptual: float = Field(default=0.0, ge=0)
    """Mean absolute differences of features of VGG19, as ``[perceptual]`` says."""
    gan: float = Field(default=0.0, ge=0)
    """The judgement of a discriminator that learns at the same time, as ``[gan]`` says."""

    @model_validator(mode="after")
    def _has_a_term(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all weights are 0; give at least one term, such as l1 = 1")
        return self


class OptimizerRecipe(RecipeSection):
    """``[optimizer]``: AdamW, or Adam."""

    kind: OptimizerKind = "adamw"
    learning_rate: float = Field(default=5e-4, gt=0)
    """The highest learning rate, reached after the warm-up."""
    betas: Decays = (0.9, 0.99)
    """Decay of the running averages of the gradient and of its square."""
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients whose norm is larger are shrunk to it; leave it out for no clipping."""
    micro_batches: int = Field(default=1, ge=1)
    """A batch is worked through in so many parts, to need less memory (gradient accumulation)."""


class ScheduleRecipe(RecipeSection):
    """``[schedule]``: the learning rate over the steps."""

    kind: Literal["cosine", "halving", "constant"] = "cosine"
    """From the highest rate: half a cosine to ``final_learning_rate``; halved at given steps (the
    paper's); or as it is."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear rise from 0."""
    final_learning_rate: float = Field(default=1e-6, ge=0)
    """Where the cosine ends."""
    halve_at: tuple[int, ...] = ()
    """Steps at which "halving" halves the rate, rising."""
    halving_factor: float = Field(default=0.5, gt=0, lt=1)
    """What "halving" multiplies the rate by, where half is not meant (ESC-Real: 0.4)."""

    @model_validator(mode="after")
    def _halves_where_it_says(self) -> Self:
        if (self.kind == "halving") != bool(self.halve_at):
            raise ValueError('halve_at is needed by kind = "halving", and by no other kind')
        if list(self.halve_at) != sorted(set(self.halve_at)):
            raise ValueError("halve_at must rise")
        return self


class WatchRecipe(RecipeSection):
    """``[watch]``: how often the run is logged, judged and saved. Shapes no result."""

    log_every_steps: int = Field(default=100, ge=1)
    validate_every_steps: int = Field(default=1000, ge=1)
    """The first test set is judged by the protocol, and a sample picture written."""
    checkpoint_every_seconds: float = Field(default=180, gt=0)
    checkpoints_kept: int = Field(default=2, ge=1)
    """Older ones are deleted."""


class Recipe(RecipeSection):
    """One run. Everything but ``[watch]`` shapes the weights that come out."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run and of the weights that come out of it."""
    model: str
    """Name of a variant, such as "esc-tiny"."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the variant's configuration to change, such as ``window_size``."""
    scale: int = Field(ge=1, le=8)
    """Upscaling factor per side."""
    starts_from: str | None = None
    """Name of the recipe whose weights this one starts from: taken from the box where they are
    there, else given with ``--from``. Left out: random weights, unless ``--from`` says another."""
    steps: int = Field(ge=1)
    """Optimiser steps in all."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the moving average of the weights, which is what is judged and shipped."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the forward and backward pass; weights and optimiser stay in float32. "auto" is bfloat16
    where the processor multiplies in it, else float32: decided at each start, written into the log
    and the file of weights. float16 is for CUDA."""
    compile: bool = False
    """Compile the network with torch.compile: about a minute first, then faster steps."""
    seed: int = Field(default=0, ge=0)
    """Of the initial weights and of the choice of patches."""
    data: DataRecipe = DataRecipe()
    loss: LossRecipe = LossRecipe(l1=1.0)
    optimizer: OptimizerRecipe = OptimizerRecipe()
    schedule: ScheduleRecipe = ScheduleRecipe()
    degradation: DegradationRecipe = DegradationRecipe()
    perceptual: PerceptualRecipe = PerceptualRecipe()
    gan: GanRecipe = GanRecipe()
    watch: WatchRecipe = WatchRecipe()
    licence: str = "not stated"
    """Of the weights that come out; written into their file."""
    training_data: str = "not stated"
    """What the weights are trained on, under which licences; written into their file."""

    @field_validator("model")
    @classmethod
    def _is_a_variant(cls, model: str) -> str:
        if model not in VARIANTS:
            raise ValueError(f"there is no such model; the names are {', '.join(VARIANTS)}")
        return model

    @model_validator(mode="after")
    def _makes_a_network(self) -> Self:
        try:
            self.network_config()
        except ConfigurationError as error:
            raise ValueError(f"config: {error}") from error
        if self.data.batch_size % self.optimizer.micro_batches:
            raise ValueError("data.batch_size must be a multiple of optimizer.micro_batches")
        return self

    @model_validator(mode="after")
    def _can_be_degraded(self) -> Self:
        if self.data.degradation != "second-order":
            if self.degradation != DegradationRecipe():
                raise ValueError('[degradation] is used by data.degradation = "second-order" alone')
            return self
        side, needed = self.degradation.degraded_pixels, self.data.patch_pixels * self.scale
        if side < needed or side % self.scale:
            raise ValueError(
                f"degradation.degraded_pixels is {side}; it must be a multiple of scale "
                f"{self.scale}, and at least data.patch_pixels x scale = {needed}"
            )
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if not self.loss.perceptual and self.perceptual != PerceptualRecipe():
            raise ValueError("[perceptual] is used where loss.perceptual has a weight alone")
        if not self.loss.gan and self.gan != GanRecipe():
            raise ValueError("[gan] is used where loss.gan has a weight alone")
        side, needed = self.data.patch_pixels * self.scale, LEAST_PERCEPTUAL_PIXELS
        if self.loss.perceptual and side < needed:
            raise ValueError(
                f"data.patch_pixels x scale is {side}; for loss.perceptual it must be at least "
                f"{needed}"
            )
        return self

    @model_validator(mode="after")
    def _enlarges_to_any_scale(self) -> Self:
        if self.data.degradation != "pillow-any-scale":
            if self.data.query_pixels != DataRecipe().query_pixels:
                raise ValueError(
                    'data.query_pixels is used by data.degradation = "pillow-any-scale" alone'
                )
            return self
        if not self.network_config().is_arbitrary_scale:
            raise ValueError(
                'data.degradation = "pillow-any-scale" is for networks that enlarge to any size, '
                'such as model = "esc-lte"'
            )
        whole_images = ("fft", "perceptual", "gan")
        if any(getattr(self.loss, name) for name in whole_images):
            raise ValueError(
                'data.degradation = "pillow-any-scale" compares single pixels: '
                f"{', '.join(f'loss.{name}' for name in whole_images)} must be 0"
            )
        return self

    def network_config(self) -> ESCConfig:
        """The configuration of the network to train."""
        return variant(self.model, scale=self.scale, **self.config)
