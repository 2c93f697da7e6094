"""What a run is made of: a recipe is a task, an architecture and training settings, with a name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, get_type_hints

from prisma.config import ViTConfig
from prisma.data import task
from prisma.errors import PrismaError, nearest

_POSITIVE = ("steps", "batch_size", "lr", "clip", "checkpoint_every", "threads")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every number of a training run that is not architecture. A step is one update of the weights."""

    steps: int
    batch_size: int  # images per step
    lr: float  # at the peak of the schedule
    warmup: int  # steps of linear rise to the peak
    weight_decay: float  # decoupled, of the matrices only
    clip: float = 1.0  # largest norm of the whole gradient
    shift: float = 0.0  # pixels: each training image moves by up to so much along each axis
    turn: float = 0.0  # degrees: each training image turns by up to so much
    checkpoint_every: int  # steps, once past 512; before that at 0 and the powers of two
    init_seed: int = 0  # of the first weights
    order_seed: int = 0  # of what each step sees: which images, and how they move
    threads: int = 1  # on the CPU; another number may sum in another order and so change the last bits

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if type(value) is int and kind is float:
                object.__setattr__(self, name, float(value))
            elif type(value) is not kind:
                raise PrismaError(f"{name} must be {_KINDS[kind]}; found {value!r}")
            low = "more than 0" if name in _POSITIVE else "at least 0"
            if not (value > 0 or (value == 0 and name not in _POSITIVE)) or value >= 2**32:
                raise PrismaError(f"{name} must be {low} and less than 2^32; found {value!r}")
        if self.warmup >= self.steps:
            raise PrismaError(f"warmup={self.warmup} contradicts steps={self.steps}: the rise must end before the run")


@dataclass(frozen=True)
class Recipe:
    """A mouse that can be trained."""

    name: str
    task: str  # a name in prisma.data.TASKS
    model: ViTConfig
    training: TrainConfig

    def __post_init__(self) -> None:
        data = task(self.task)
        wanted = {
            "image_sides": data.transform.size,
            "channels": len(data.transform.mean),
            "n_classes": len(data.labels),
        }
        for name, value in wanted.items():
            if (found := getattr(self.model, name)) != value:
                raise PrismaError(f"the model's {name} must be {value} for the task {self.task}; found {found}")

    def override(self, values: Mapping[str, str]) -> "Recipe":
        """The recipe with some fields of its TrainConfig or ViTConfig read from text: {"steps": "500"}.

        Raises:
            PrismaError: no such field, text that is no such value, or values that contradict each other.
        """
        training, model = get_type_hints(TrainConfig), get_type_hints(ViTConfig)
        kinds = training | model
        for key in values:
            if key not in kinds:
                raise PrismaError(f"a recipe has no setting {key!r}; the nearest: {nearest(key, kinds)}")
        new = {key: _parse(key, text, kinds[key]) for key, text in values.items()}
        if self.model.d_head * self.model.n_heads == self.model.d_model:  # heads share the width, also another width
            new = {"d_head": 0, **new}
        return replace(
            self,
            training=replace(self.training, **{key: new[key] for key in new if key in training}),
            model=replace(self.model, **{key: new[key] for key in new if key in model}),
        )


_KINDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    int | tuple[int, int]: "a side, or height,width",
}
_TRUTH = {"true": True, "false": False}


def _parse(key: str, text: str, kind: Any) -> Any:
    try:
        if isinstance(kind, UnionType):
            sides = tuple(int(side) for side in text.split(","))
            return sides[0] if len(sides) == 1 else sides
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise PrismaError(f"{key} must be {_KINDS[kind]}; found {text!r}") from None
