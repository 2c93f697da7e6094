"""Recipes: a task, an architecture and training settings, with a name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, get_type_hints

from prisma.bounds import NUMBERS, expect_within
from prisma.config import ViTConfig
from prisma.data import task
from prisma.data.task import Task
from prisma.errors import PrismaError, nearest
from prisma.fields import check_types, expect_choices, from_dict, parse
from prisma.headlines import HEADLINES, OBJECTIVE
from prisma.repo_names import expect_repo_name
from prisma.run_folder import RECIPE, checkpoint_steps
from prisma.train.objectives import CLASSIFICATION, OBJECTIVES, Objective
from prisma.train.trained import expect_trained


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of a training run, beside the architecture. A step is one update of the weights."""

    steps: int
    batch_size: int  # images per step
    lr: float  # at the peak of the schedule
    warmup: int  # steps of linear rise to the peak
    weight_decay: float  # decoupled, on the matrices only
    clip: float = 1.0  # the largest norm of the gradient
    shift: float = 0.0  # pixels: the largest move of a training image along each axis
    turn: float = 0.0  # degrees: the largest rotation of a training image
    checkpoint_every: int  # steps between checkpoints after step 512; before, they are at 0 and the powers of two
    init_seed: int = 0  # the seed of the first weights
    order_seed: int = 0  # the seed of the batches: which images, and how they move
    threads: int = 1  # on the CPU; another number may change the order of sums and so the last bits
    decay_every: int = 0  # steps: after each so many the rate falls by `decay_factor`; 0: half a cosine to zero
    decay_factor: float = 0.8
    decay_all: bool = False  # weight decay on all weights, not on the matrices only
    init: str = "fan_in"  # the first weights: N(0, 1 / fan_in), or kaiming, N(0, 2 / fan_in)
    precision: str = "float32"  # of products: float32, or bfloat16 (autocast) where it is fast (`prisma.train.machine`)
    accumulate: int = 1  # parts that a batch is computed in, one after the other: the same gradient in less memory
    ema: float = 0.0  # the decay of a running mean of the weights (`prisma.train.mean_weights`); 0: none
    patience: int = 0  # steps without a better `stop_on`, after which the run ends at a checkpoint; 0: it never does
    stop_on: str = "test_loss"  # what has to get better: a loss lower, an accuracy or r2 higher
    stop_at_accuracy: float = 0.0  # the test accuracy with which the run ends at a checkpoint; 0: it never does
    trained: str = "all"  # which weights: all, head, or the last blocks and the head, such as last:2
    objective: str = "classification"  # what the model is trained to do (`prisma.train.objectives`)
    norm_pixels: bool = False  # pixels that are wanted are those of a patch less their mean, over their deviation
    drop: float = 0.75  # of objective="masked": the share of the patches that the encoder does not see
    decoder_layers: int = 1  # of objective="masked", as the next two: blocks of the decoder
    decoder_d_model: int = 32
    decoder_heads: int = 4
    goal_every: int = 0  # of objective="varying": steps, after each so many of which the goal is another; 0: it stays

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "init": ("fan_in", "kaiming"),
        "precision": ("float32", "bfloat16"),
        OBJECTIVE: tuple(HEADLINES),
        "stop_on": ("test_loss", "test_accuracy", "test_r2", "train_loss", "train_accuracy", "train_r2"),
    }
    LATER: ClassVar[tuple[str, ...]] = (
        "decay_every", "decay_factor", "decay_all", "init", "precision", "accumulate", "ema", "patience", "stop_on",
        "objective", "norm_pixels", "drop", "decoder_layers", "decoder_d_model", "decoder_heads",
        "trained", "stop_at_accuracy", "goal_every",
    )  # fmt: skip
    """Settings that earlier versions did not have, with what they did as the default: stated where they differ."""

    def __post_init__(self) -> None:
        check_types(self)
        expect_choices(self, self.CHOICES)
        expect_trained(self.trained)
        for field in fields(self):
            if field.name in NUMBERS:
                expect_within(field.name, getattr(self, field.name))
        if self.warmup >= self.steps:
            raise PrismaError(f"warmup={self.warmup} contradicts steps={self.steps}: the rise must end before the run")
        if self.batch_size % self.accumulate:
            raise PrismaError(
                f"accumulate={self.accumulate} contradicts batch_size={self.batch_size}: the parts must be of one size"
            )
        checkpoint_steps(self.steps, self.checkpoint_every)  # raises PrismaError for too many

    @property
    def may_end_early(self) -> bool:
        """Whether a run may end at an earlier checkpoint than that of the last step."""
        return bool(self.patience or self.stop_at_accuracy)

    def to_dict(self) -> dict[str, Any]:
        """The settings as `recipe.json` has them."""
        stated = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: x for name, (x, default) in stated.items() if name not in self.LATER or x != default}


@dataclass(frozen=True)
class Recipe:
    """A mouse that can be trained."""

    name: str
    task: str  # a name in prisma.data.TASKS
    model: ViTConfig
    training: TrainConfig
    license: str | None = None  # of the weights, by its id on the Hub, such as mit; a card needs one
    expected_accuracy: float | None = None  # on the test images, with these seeds
    published_accuracy: float | None = None  # of the mouse whose settings these are, or whose budget
    datasets: tuple[str, ...] = ()  # the repositories of the Hub that hold the data, for the card: OWNER/NAME
    expected_r2: float | None = None  # instead of the accuracy, of an objective that has none
    base_model: tuple[str, ...] = ()  # and those of the models that it was fine-tuned from

    def __post_init__(self) -> None:
        for repo in (*self.datasets, *self.base_model):
            expect_repo_name(repo)
        data = task(self.task)
        wanted = {
            "image_sides": data.transform.size,
            "channels": len(data.transform.mean),
            "n_classes": len(self.objective.names),
        }
        for name, value in wanted.items():
            if (found := getattr(self.model, name)) != value:
                raise PrismaError(
                    f"expected the model's {name} to be {value} for the task {self.task}"
                    f"{self._other_objective * (name == 'n_classes')}; found {found}"
                )
        measures, stop_on = self.objective.measures[:2], self.training.stop_on
        if self.training.patience and stop_on.partition("_")[2] not in measures:
            raise PrismaError(
                f"expected stop_on to name a {' or '.join(measures)} for the objective {self.training.objective}; "
                f"found {stop_on}"
            )
        if self.training.stop_at_accuracy and "accuracy" not in measures:
            raise PrismaError(
                f"expected an objective with an accuracy for stop_at_accuracy; found {self.training.objective}"
            )
        expect_within("trained weights", self.model.n_weights, "the number of weights that are trained")
        pixels = self.training.batch_size * math.prod(self.model.input_shape)
        expect_within("pixels per batch", pixels, "the number of pixels per batch")

    @cached_property
    def objective(self) -> Objective:
        """What the model is trained to do."""
        return OBJECTIVES[self.training.objective].of(self.model, self.training, task(self.task))

    @property
    def _other_objective(self) -> str:
        """The objective in words, unless it is the one that goes without saying."""
        name = self.training.objective
        return "" if name == CLASSIFICATION.name else f" and the objective {name}"

    def override(self, values: Mapping[str, str]) -> "Recipe":
        """The recipe with other values for some fields of its TrainConfig or ViTConfig, as text: {"steps": "500"}.

        Raises:
            PrismaError: no such field, text that does not spell a value of its type, or values that contradict each
                other.
        """
        training, model = ({field.name for field in fields(config)} for config in (TrainConfig, ViTConfig))
        kinds = get_type_hints(TrainConfig) | get_type_hints(ViTConfig)
        for key in values:
            if key not in training | model:
                raise PrismaError(f"a recipe has no setting {key!r}; the nearest: {nearest(key, training | model)}")
        new = {key: parse(key, text, kinds[key]) for key, text in values.items()}
        if self.model.d_head * self.model.n_heads == self.model.d_model:  # the heads divide any new width
            new = {"d_head": 0, **new}
        return replace(
            self,
            training=replace(self.training, **{key: new[key] for key in new if key in training}),
            model=replace(self.model, **{key: new[key] for key in new if key in model}),
        )


def objective_in(recipe: Mapping[str, Any], model: ViTConfig, data: Task) -> Objective:
    """What a run was trained to do, by the content of its `recipe.json`.

    Raises:
        PrismaError: `recipe.json` holds no training settings, or these do not fit the model and the task.
    """
    training = from_dict(TrainConfig, recipe.get("training"), f"training of {RECIPE}")
    return OBJECTIVES[training.objective].of(model, training, data)
