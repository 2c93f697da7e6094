"""Tuned lens: the logit lens, with the residual stream of each stage first translated to the last stage.

For each stage s, an affine translator, the same for all tokens, is trained so that the readout comes close to the
model's answer:

    readout(x_s + x_s A_s^T + b_s),    A_s and b_s minimise  KL(model's answer || this),  starting at zero.

The last stage needs none. This makes early layers readable even where they use other directions than the readout does.
The answers are those that a linear map can find: a bound on what is known at a stage, not what the model uses.

Only the readout is trained on, so with `pool="class"` the translators are those of the class token.

Source: Belrose et al. 2303.08112. They use SGD with decay towards the identity; here it is AdamW (1711.05101), with the
same decay.

Shapes: S stage (0 is the embedding; the last one has no translator), B batch, T token, M d_model, C class.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW
from tqdm import tqdm

from prisma.analysis.border import guarded
from prisma.analysis.lens.logit_lens import LogitLens, stages_of
from prisma.analysis.result import Result
from prisma.checkpoint import read_tensors, to_safetensors, weights_hash
from prisma.errors import PrismaError, quoted, warn
from prisma.files import new_folder, read_json, write_atomic
from prisma.filesystem import given
from prisma.repo_names import is_repo_name
from prisma.repository import Published
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIG, WEIGHTS = "tuned_lens.json", "tuned_lens.safetensors"
LENS_TYPE = "prisma-tuned-lens"
MODEL = "model"  # in the metadata: the hash of the weights of the model that the lens was trained on


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedLens(Result):
    """Translators of all stages but the last, and their losses in training.

    `tuned_lens(model, lens, images)` applies them. A loss near 0 is a stage from which a linear map already finds the
    model's answer; a loss that still falls at the last step needs more steps.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "losses": ("step", "stage"),
        "weight": ("stage", "output", "input"),
        "bias": ("stage", "output"),
    }

    losses: Tensor  # KL in nats, mean over the images of a step
    weight: Tensor  # A, float32 at least
    bias: Tensor  # b

    def translate(self, x_BTM: Tensor, stage: int) -> Tensor:
        """The residual stream [batch, token, d_model] of a stage, translated to the last stage."""
        if stage == len(self.weight):
            return x_BTM
        return _translated(x_BTM, self.weight[stage], self.bias[stage])

    def plot(self, array: str | None = None) -> "Figure":
        """By default the losses, a line for each stage; "weight" and "bias" are heat maps."""
        if array not in (None, "losses"):
            return super().plot(array)
        title = str(self.metadata["analysis"]).replace("_", " ")
        lines = {f"stage {stage}": x_S[None] for stage, x_S in enumerate(self.losses.unbind(1))}
        return draw_stages(lines, axis="step", title=f"{title}: KL to the answer during training, nats")

    def write(self, folder: str | Path) -> None:
        """Write a folder, whole or not at all: `tuned_lens.json` (the metadata) and `tuned_lens.safetensors`.

        Raises:
            PrismaError: the folder is not empty, or cannot be written.
        """
        with new_folder(given(folder)) as partial:
            content = {"model_type": LENS_TYPE, "metadata": dict(self.metadata)}
            write_atomic(partial / CONFIG, (json.dumps(content, indent=2) + "\n").encode())
            write_atomic(partial / WEIGHTS, to_safetensors(self.arrays, {}))


@guarded
def read_tuned_lens(ref: str | Path, revision: str | None = None, hub: str | Path | None = None) -> TunedLens:
    """Read a tuned lens: a folder written by `TunedLens.write`, or a published one.

    Args:
        ref: a folder, or OWNER/NAME of a tuned lens that `prisma publish` published.
        revision: of a published one, a commit, a branch or a tag; None is the newest.
        hub: the folder hub of a published one; None is the Hugging Face Hub, or its cache when offline.

    Raises:
        PrismaError: no such folder, repository or revision; a file is missing, truncated or not a tuned lens.
    """
    folder = given(ref)
    if hub is not None or (not folder.exists() and isinstance(ref, str) and is_repo_name(ref)):
        published = Published(str(ref), given(hub) if hub is not None else None)
        folder = published.file(CONFIG, revision, " (and there is no such folder)").parent
        published.file(WEIGHTS, folder.name)  # of the same commit, if the label has moved meanwhile
    elif revision is not None:
        raise PrismaError(f"expected no revision for the folder {folder}; found {quoted(revision)}")
    try:
        content = read_json(folder / CONFIG)
    except PrismaError as error:
        raise PrismaError(f"expected a tuned lens with {CONFIG} at {folder}; found none ({error})") from None
    tensors, _ = read_tensors(folder / WEIGHTS)
    known = content.get("model_type") == LENS_TYPE
    metadata = content.get("metadata", content.get("produced")) if known else None  # 0.1.0 called it "produced"
    if not isinstance(metadata, dict) or set(tensors) != set(TunedLens.AXES):
        raise PrismaError(f"expected a tuned lens at {folder}; found something else")
    n, m = tensors["bias"].shape if tensors["bias"].ndim == 2 else (0, 0)
    losses, sizes = tensors["losses"].shape, {name: list(x.shape) for name, x in tensors.items()}
    shapes_fit = tensors["weight"].shape == (n, m, m) and len(losses) == 2 and losses[1] == n and min(n, m, *losses) > 0
    if not shapes_fit or not all(x.is_floating_point() for x in tensors.values()):
        raise PrismaError(
            "expected floats, weight [stage, d_model, d_model], bias [stage, d_model] and losses [step, stage] in "
            f"{folder / WEIGHTS}; found {sizes}"
        )
    return TunedLens(metadata=metadata, **tensors)


@guarded
@torch.inference_mode(False)  # the caller may be in it
@torch.enable_grad()
def train_tuned_lens(
    model: ViT,
    images: Tensor,
    *,
    steps: int = 250,
    batch: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    start: TunedLens | None = None,
    other_model: bool = False,
    progress: bool = False,
) -> TunedLens:
    """Train the translators of a tuned lens on images. The model is not changed.

    The losses are KL divergences from the model's answer in nats, for each step and stage: near 0 is a stage from which
    a linear map finds the answer, and early stages stay higher. Use images that the analysis will not look at.

    Args:
        images: normalised, [n, channel, (frame,) height, width].
        steps: number of updates; the learning rate falls linearly from `lr` to zero.
        batch: images of one update, drawn without repetition until all were used. A setting of the training: it
            changes the result.
        lr: the learning rate of the first update.
        weight_decay, seed: decay of the matrices (not the biases) towards the identity; seed of the images' order.
        start: translators to continue from, for images that come in shards.
        other_model: take a `start` of a model with other weights, too.
        progress: show a progress bar on stderr.

    Returns:
        `losses` [step, stage] in nats, `weight` [stage, output, input], `bias` [stage, output].

    Raises:
        PrismaError: the model has no classes or no layers, there are no images, `start` is of another model, a number
            is not positive, or the loss is not finite.

    Source: Belrose et al. 2303.08112.
    """
    c = model.config
    if not c.n_layers:
        raise PrismaError(
            "a tuned lens translates the stages before the last, so it needs a model with layers; found n_layers=0"
        )
    if not (min(steps, batch) > 0 and lr > 0 and weight_decay >= 0) or not len(images):
        raise PrismaError(
            f"expected images, and steps, batch and lr above 0; found {len(images)} images, {steps}, {batch} and {lr}"
        )
    weight, bias = _first_translators(model, start, other_model, images.device)
    translators = [(w.requires_grad_(), b.requires_grad_()) for w, b in zip(weight, bias, strict=True)]
    optimizer = AdamW([{"params": weight, "weight_decay": weight_decay}, {"params": bias, "weight_decay": 0.0}], lr=lr)
    losses = []
    for step, chosen in enumerate(tqdm(_order(len(images), batch, steps, seed), total=steps, disable=not progress)):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        losses.append(_loss_and_gradients(model, images[chosen.to(images.device)], translators))
        optimizer.step()
    settings = {"steps": steps, "batch": batch, "lr": lr, "weight_decay": weight_decay, "seed": seed}
    metadata = {"analysis": "tuned_lens", **settings, "images": len(images), MODEL: weights_hash(model.state_dict())}
    parameters = {"weight": torch.stack(weight).detach(), "bias": torch.stack(bias).detach()}
    return TunedLens(metadata=metadata, losses=torch.stack(losses), **parameters)


@guarded
@torch.no_grad()
def tuned_lens(model: ViT, lens: TunedLens, images: Tensor, *, other_model: bool = False) -> LogitLens:
    """What would the model answer after each layer, if a linear map translates that layer for the readout?

    Read it as `logit_lens`: the class with the largest logit is the answer at that stage, and the last stage equals the
    logits. A class that appears here earlier than in the logit lens is present in other directions than the readout's.

    Args:
        lens: translators, from `train_tuned_lens` on the same model or from `read_tuned_lens`.
        images: [batch, channel, (frame,) height, width].
        other_model: take a lens of a model with other weights, too, such as this one before fine-tuning or in another
            precision.

    Returns:
        A `LogitLens` with `readout` [image, stage, class], logits, and no `tokens`.

    Raises:
        PrismaError: the lens is of another model, the model has no classes, or the images do not fit.

    Source: Belrose et al. 2303.08112.
    """
    expect_fits(lens, model, other_model)
    stages = enumerate(stages_of(model, images))
    readout_BSC = torch.stack([model.readout(lens.translate(x_BTM, stage)) for stage, x_BTM in stages], dim=1)
    return LogitLens(metadata={**lens.metadata, "analysis": "tuned_lens"}, readout=readout_BSC)


def _first_translators(
    model: ViT, start: TunedLens | None, other_model: bool, device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices and biases to start from: zeros, or those of another lens."""
    c, exact = model.config, torch.promote_types(model.embed.prefix.dtype, torch.float32)
    shapes = [(c.d_model, c.d_model)] * c.n_layers, [(c.d_model,)] * c.n_layers
    weight, bias = ([torch.zeros(s, dtype=exact, device=device) for s in of_kind] for of_kind in shapes)
    if start is not None:
        expect_fits(start, model, other_model)
        weight, bias = ([x.to(weight[0]).clone() for x in of_kind] for of_kind in (start.weight, start.bias))
    return weight, bias


def _translated(x_BTM: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y_BTM = x_BTM.to(weight.dtype)
    return (y_BTM + y_BTM @ weight.T + bias).to(x_BTM.dtype)


def _loss_and_gradients(model: ViT, images: Tensor, translators: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Losses [stage], and sets `grad` of every translator: stage by stage, so that only one graph is in memory."""
    with torch.no_grad():
        stages = list(stages_of(model, images))
        answer_BC = model.readout(stages[-1]).to(translators[0][0].dtype).log_softmax(-1)
    losses = []
    for x_BTM, (weight, bias) in zip(stages, translators, strict=False):  # all but the last
        found_BC = model.readout(_translated(x_BTM, weight, bias)).to(answer_BC.dtype).log_softmax(-1)
        loss = (answer_BC.exp() * (answer_BC - found_BC)).sum(-1).mean()
        weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))  # the model's parameters get none
        losses.append(loss.detach())
    found = torch.stack(losses)
    if not found.isfinite().all():
        raise PrismaError(f"expected finite losses of the tuned lens; found {found.tolist()}; a smaller lr may help")
    return found


def _order(n: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of the images of each step: shuffled again when all were used."""
    generator, left = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(left) < min(batch, n):
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        chosen, left = left[:batch], left[batch:]
        yield chosen


def expect_fits(lens: TunedLens, model: ViT, other_model: bool = False) -> None:
    """Raise PrismaError unless a lens has the sizes and, if it states any, the weights of a model."""
    wanted = (model.config.n_layers, model.config.d_model)
    if (found := tuple(lens.bias.shape)) != wanted or tuple(lens.weight.shape) != (*wanted, wanted[1]):
        raise PrismaError(f"expected a tuned lens for {wanted[0]} layers and d_model {wanted[1]}; found {found}")
    if other_model:
        return
    trained_on, here = lens.metadata.get(MODEL), weights_hash(model.state_dict())
    if trained_on is None:
        warn(f"this tuned lens does not say which model it was trained on ({lens.bias.shape[0]} stages)")
    elif trained_on != here:
        raise PrismaError(
            f"expected a lens that was trained on this model, whose weights are {here[:12]}; found one of a model with "
            f"the weights {trained_on[:12]}: to read it all the same, use other_model=True"
        )
