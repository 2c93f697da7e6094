"""The newest moment of a run, whole: weights, Adam's moments and the step, so that training goes on from there."""

from pathlib import Path

from torch.optim import AdamW

from prisma.checkpoint import read_tensors, to_safetensors
from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.vit import ViT

STATE = "state.safetensors"
_WEIGHT = "weight"


def save_state(path: Path, model: ViT, optimizer: AdamW, step: int, run: str) -> None:
    """Write `weight.NAME` and Adam's `step.NAME`, `exp_avg.NAME` and `exp_avg_sq.NAME`, atomically.

    Raises:
        PrismaError: the file could not be written; the one before is untouched.
    """
    parts = {
        name: {_WEIGHT: parameter, **optimizer.state.get(parameter, {})} for name, parameter in model.named_parameters()
    }
    tensors = {f"{kind}.{name}": x for name, part in parts.items() for kind, x in part.items()}
    write_atomic(path, to_safetensors(tensors, {"step": str(step), "run": run}))


def load_state(path: Path, model: ViT, optimizer: AdamW, run: str) -> int:
    """Put model and optimizer back to where `save_state` found them, and return the step.

    Raises:
        PrismaError: the file is absent, truncated, foreign, or of another run.
    """
    tensors, header = read_tensors(path)
    if header.get("run") != run:
        raise PrismaError(f"expected the state of run {run} in {path}, found that of {header.get('run')}")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    if missing := sorted({f"{_WEIGHT}.{name}" for name in order} - set(tensors)):
        raise PrismaError(f"{path} lacks {missing[0]}")
    model.load_state_dict({name: tensors[f"{_WEIGHT}.{name}"] for name in order})
    kinds = {key.split(".", 1)[0] for key in tensors} - {_WEIGHT}  # none before the first update
    state = {i: {kind: tensors[f"{kind}.{name}"] for kind in kinds} for i, name in enumerate(order)} if kinds else {}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(header["step"])
