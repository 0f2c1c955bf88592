"""Recipes: a training run as data, everything that shapes its result, and no path."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from escsr.errors import ConfigurationError
from escsr.family.configuration import ESCConfig
from escsr.family.variants import VARIANTS, variant


class RecipeSection(BaseModel):
    """A table of the recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Degradation = Literal[
    "matlab", "matlab-after-crop", "pillow-after-crop", "pillow-any-scale", "second-order"
]
"""How LR is made of HR, both 8-bit.

- ``matlab``: the whole image by MATLAB's bicubic rule, then pairs are cut: patches know their
  surroundings as test images do. The field's classic data.
- ``matlab-after-crop``: each HR patch by MATLAB's bicubic rule, after crop and augmentation.
- ``pillow-after-crop``: each HR patch by Pillow's bicubic filter, after crop and augmentation.
  The data of the paper's DFLIP networks.
- ``pillow-any-scale``: later, of crops of random scale (``training.arbitrary_scale``); only squares
  of the largest crop's side are cut here. The data of the paper's ESC+LTE.
- ``second-order``: later, on the device, as Real-ESRGAN does; only photographs are cut here, of
  ``degraded_pixels`` per side. The data of the paper's ESC-Real.
"""


Augmentation = Literal["none", "flips", "flips-rotations"]
"""``flips`` mirrors left and right; ``flips-rotations`` draws from all 8 orientations."""


TrainingKind = Literal["pairs", "photographs", "queries"]
"""What the training data of a step are: pairs of LR and HR patches; photographs, which the device
degrades; or LR patches with queries, pixels of crops of random scale."""


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

    @property
    def kind(self) -> TrainingKind:
        """What batches hold: the one place where the degradation decides it."""
        if self.degradation == "second-order":
            return "photographs"
        return "queries" if self.degradation == "pillow-any-scale" else "pairs"

    @property
    def needs_pillow(self) -> bool:
        """Whether Pillow makes LR."""
        return self.degradation in ("pillow-after-crop", "pillow-any-scale")

    @property
    def shrinks_whole_images(self) -> bool:
        """Whether LR is made before patches are cut."""
        return self.degradation == "matlab"


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


OptimizerKind = Literal["adamw", "adam"]


def _decays(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError("both betas must be at least 0 and below 1")
    return betas


Decays = Annotated[tuple[float, float], AfterValidator(_decays)]
"""Of an optimiser's running averages, of the gradient and of its square."""


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


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first number must not be larger than the second")
    return bounds


def _odd(sides: tuple[int, int]) -> tuple[int, int]:
    if not all(side % 2 for side in sides):
        raise ValueError("both sides must be odd")
    return sides


def _summing_to_1(chances: tuple[float, ...]) -> tuple[float, ...]:
    if abs(sum(chances) - 1) > 1e-6:
        raise ValueError(f"the chances must sum to 1, not {sum(chances):g}")
    # numpy, which draws by them, allows 1.5e-8. What float64 rounds stays as it was written.
    if abs(sum(chances) - 1) < 1e-9:
        return chances
    return tuple(chance / sum(chances) for chance in chances)


_Chance = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_PositiveRange = Annotated[tuple[_Positive, _Positive], AfterValidator(_rising)]
_Level = Annotated[float, Field(ge=0)]
_LevelRange = Annotated[tuple[_Level, _Level], AfterValidator(_rising)]
_Quality = Annotated[float, Field(ge=1, le=100)]
_QualityRange = Annotated[tuple[_Quality, _Quality], AfterValidator(_rising)]
_UpTo1 = Annotated[float, Field(gt=0, le=1)]
_From1 = Annotated[float, Field(ge=1)]
_Side = Annotated[int, Field(ge=1, le=51)]


class DegradationStageRecipe(RecipeSection):
    """``[degradation.first]``: blur, resize, noise and JPEG, with ESC-Real's figures.

    Chances of resizes and of the kind of noise hold for a batch, all others for each image.
    """

    blur_chance: _Chance = 1.0
    """Of a blur at all, for the batch."""
    sinc_chance: _Chance = 0.1
    """That the kernel is a sinc, else one of ``kernel_chances``."""
    kernel_chances: Annotated[
        tuple[_Chance, _Chance, _Chance, _Chance, _Chance, _Chance], AfterValidator(_summing_to_1)
    ] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Of Gaussian, generalised Gaussian and plateau kernels, each isotropic, then anisotropic."""
    sigma: _PositiveRange = (0.2, 3.0)
    """Widths of these kernels, in pixels."""
    generalised_beta: tuple[_UpTo1, _From1] = (0.5, 4.0)
    """Exponents of generalised Gaussians: half of the draws below 1, half above."""
    plateau_beta: tuple[_UpTo1, _From1] = (1.0, 2.0)
    """Exponents of plateaus, likewise."""
    resize_chances: Annotated[tuple[_Chance, _Chance, _Chance], AfterValidator(_summing_to_1)] = (
        0.2,
        0.7,
        0.1,
    )
    """Of enlarging, shrinking, and leaving the size alone."""
    resize_range: tuple[_UpTo1, _From1] = (0.15, 1.5)
    """The smallest and the largest factor."""
    gaussian_chance: _Chance = 0.5
    """Of Gaussian noise; else it is Poisson's."""
    noise_sigma: _LevelRange = (1.0, 30.0)
    """Of Gaussian noise, of a range of 255."""
    poisson_scale: _LevelRange = (0.05, 3.0)
    """What Poisson noise is multiplied by."""
    grey_chance: _Chance = 0.4
    """That the noise of an image is the same in all channels."""
    jpeg_quality: _QualityRange = (30.0, 95.0)


class SecondDegradationStageRecipe(DegradationStageRecipe):
    """``[degradation.second]``: the same once more, a little milder."""

    blur_chance: _Chance = 0.8
    sigma: _PositiveRange = (0.2, 1.5)
    resize_chances: Annotated[tuple[_Chance, _Chance, _Chance], AfterValidator(_summing_to_1)] = (
        0.3,
        0.4,
        0.3,
    )
    resize_range: tuple[_UpTo1, _From1] = (0.3, 1.2)
    """Factors, beyond that of the LR image."""
    noise_sigma: _LevelRange = (1.0, 25.0)
    poisson_scale: _LevelRange = (0.05, 2.5)


class DegradationRecipe(RecipeSection):
    """``[degradation]``: Real-ESRGAN's, used where ``data.degradation`` is "second-order"."""

    degraded_pixels: int = Field(default=400, ge=16)
    """Side of what is cut from a photograph and degraded whole; HR patches are cut from it."""
    usm_weight: _Level = 0.5
    """Of the unsharp mask on targets and on what is degraded; 0 leaves them as they are."""
    usm_threshold: _Level = 10.0
    """Differences from the blurred image up to this are noise, not sharpened; of 255."""
    kernel_pixels: Annotated[tuple[_Side, _Side], AfterValidator(_rising), AfterValidator(_odd)] = (
        7,
        21,
    )
    """Smallest and largest side of a kernel, odd."""
    final_sinc_chance: _Chance = 0.8
    """Of a sinc filter beside the last JPEG."""
    pool_pairs: int = Field(default=180, ge=0)
    """Pairs per process from which batches are drawn, so that the images of one are degraded
    differently: at least so many, rounded up to whole batches; 0 for no pool."""
    first: DegradationStageRecipe = DegradationStageRecipe()
    second: SecondDegradationStageRecipe = SecondDegradationStageRecipe()


VGG19_STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and channels of each stage of VGG19; a pooling by 2 follows each."""

VGG19_CONVOLUTIONS = tuple(
    f"conv{stage}_{number}"
    for stage, (count, _) in enumerate(VGG19_STAGES, start=1)
    for number in range(1, count + 1)
)
"""Their names, the first to the last."""

LEAST_PERCEPTUAL_PIXELS = 16
"""Side of an image of which the last stage, behind four poolings, sees a pixel."""


PerceptualWeights = Literal["imagenet", "random"]
"""Trained on ImageNet, as torchvision's; or random, which trains nothing well and is for tests."""

GanKind = Literal["vanilla", "lsgan", "hinge"]
"""Cross entropy; squared distance from 1 (real) and 0 (fake); or distance beyond a margin of 1."""


def _known_layers(weights: dict[str, float]) -> dict[str, float]:
    unknown = [name for name in weights if name not in VGG19_CONVOLUTIONS]
    if unknown:
        raise ValueError(
            f"there is no {', '.join(unknown)} in VGG19; it has {', '.join(VGG19_CONVOLUTIONS)}"
        )
    if not any(weights.values()):
        raise ValueError("all weights are 0; give at least one layer, such as conv5_4 = 1")
    return weights


class PerceptualRecipe(RecipeSection):
    """``[perceptual]``: VGG19's features, used where ``loss.perceptual`` has a weight."""

    weights: PerceptualWeights = "imagenet"
    """Of VGG19: trained on ImageNet, from torchvision or ``--perceptual-weights``; or random, which
    is for tests alone."""
    layers: Annotated[dict[str, Annotated[float, Field(ge=0)]], AfterValidator(_known_layers)] = (
        Field(
            default={"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
        )
    )
    """Weight of each convolution's features, taken before ReLU. Those of a base recipe stay: set
    them to 0."""


class GanRecipe(RecipeSection):
    """``[gan]``: the discriminator, used where ``loss.gan`` has a weight."""

    kind: GanKind = "vanilla"
    """What both networks make small: cross entropy, squared distance, or distance from a margin."""
    channels: int = Field(default=64, ge=1)
    """Of the discriminator at full size."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of the discriminator at its highest; it follows ``[schedule]`` as the network's does."""
    betas: Decays = (0.9, 0.99)
    """Of its optimiser, which is Adam."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Its gradients are shrunk to this norm; leave it out for no clipping."""


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
    """Name of the recipe whose weights this one starts from: the pretrained weights of
    that name if they are included, else those given with ``--from``. Left out: random weights,
    unless ``--from`` names others."""
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
        if self.data.kind != "photographs":
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
        if self.data.kind != "queries":
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

    @property
    def hr_patch_pixels(self) -> int:
        """Side of an HR patch; for any scale, of the largest crop."""
        return self.data.patch_pixels * self.scale

    @property
    def cut_pixels(self) -> int:
        """Side of what is cut from a photograph."""
        is_degraded = self.data.kind == "photographs"
        return self.degradation.degraded_pixels if is_degraded else self.hr_patch_pixels

    @property
    def smallest_side_pixels(self) -> int:
        """What both sides of a photograph need; one to degrade is extended by reflection."""
        return 1 if self.data.kind == "photographs" else self.hr_patch_pixels
