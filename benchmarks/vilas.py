"""The tables of Vilas et al. 2310.18969 again: published and measured, side by side.

    python -m benchmarks.vilas --model timm/vit_base_patch32_224.augreg_in21k_ft_in1k
        --images IMAGENET-S/validation --masks IMAGENET-S/validation-segmentation [--limit N] [--device cuda]

Needs the weights of timm (by name, or a folder of them) and ImageNet-S-919 by path: `--images` has a folder for each
class, named by its synset (n01440764) or like the model's class, and `--masks` the PNG files of the same names. The
published numbers are of 4,550 images, the first five of each of 910 classes; `--per-class` takes the first N of each.
`--tables` chooses what is computed, for removal takes 6 runs for each patch. Probes need `--train`, a folder of other
pictures, of which the first ten of each class are read at once.

Identifiability and perturbations are as published (`compat="vilas2023"`). The lines called `like for like` are the same
tokens on both sides, averages over images, and labels from coverage. The other tables are in `vilas_tables`. Pictures
are made as the model's own transform makes them, while the paper resized them to a square without a crop, so small
differences are expected.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from timm.data import ImageNetInfo
from torch import Tensor
from tqdm import tqdm

import prisma
from benchmarks.vilas_tables import (
    FIGURES,
    Means,
    add_change,
    add_memories,
    add_probes,
    add_removal,
    probes_of,
    summary,
)
from prisma.analysis.class_space.linear_probes import Probes
from prisma.analysis.class_space.perturbed import COMPAT
from prisma.data.patch_labels import Segmentations
from prisma.data.pictures import Pictures, pictures
from prisma.errors import PrismaError

TABLES = ("identifiability", "perturbation", "change", "memories", "removal")
PUBLISHED: Mapping[str, Mapping[str, float]] = {  # in percent, of the authors' notebooks
    "vit_base_patch32_224": {
        "identifiable": 60.73, "any": 95.58, "accuracy": 81.71, "random": 0.066, "random, any": 1.27,
        "self_only": 0.126, "no_cls": 60.71, "class tokens": 71.92, "class tokens alone": 44.70,
        "context tokens": 56.24, "context tokens alone": 38.68,
    },
    "vit_base_patch16_224": {
        "identifiable": 67.04, "any": 97.45, "accuracy": 85.69, "random": 0.056, "random, any": 2.18,
    },
    "vit_large_patch16_224": {"identifiable": 72.58, "any": 97.12, "accuracy": 86.00},
    "vit_base_patch16_224_miil": {"identifiable": 78.52, "any": 95.52, "accuracy": 86.26},
    "vit_base_patch16_rpn_224": {"identifiable": 52.09, "any": 98.53, "accuracy": 84.13},
}  # fmt: skip


def published_of(name: str) -> Mapping[str, float]:
    """The published numbers of a model of timm; none if it was not in the paper."""
    short = name.rpartition("/")[2].partition(".")[0]
    return {**PUBLISHED.get(short, {}), **FIGURES.get(short, {})}


def chosen_rows(found: Pictures, per_class: int) -> list[int]:
    """The first so many pictures of each class."""
    if found.labels is None:
        raise PrismaError("expected a folder for each class of the model; found pictures without labels")
    seen: dict[int, int] = {}
    rows = []
    for row, label in enumerate(found.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= per_class:
            rows.append(row)
    return rows


def class_names(loaded: prisma.Loaded) -> list[str]:
    """What the folders of pictures may be called: the synsets of ImageNet's 1000 classes, or the model's labels."""
    return ImageNetInfo().label_names() if loaded.config.n_classes == 1000 else list(loaded.labels)


def masks_of(segmentations: Segmentations, names: list[str]) -> Tensor:
    """[image, height, width], bool: where the picture shows any class."""
    places = {name: i for i, name in enumerate(segmentations.names)}
    missing = [name for name in names if name not in places]
    if missing:
        raise PrismaError(f"expected a segmentation of every picture; found none of {missing[0]}")
    return segmentations.maps([places[name] for name in names]) > 0


def batches(
    model: prisma.ViT, found: Pictures, rows: list[int], segmentations: Segmentations | None, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """(images, labels, masks), some at a time."""
    like = model.embed.prefix
    assert found.labels is not None
    for start in tqdm(range(0, len(rows), size), desc="images", unit="pass"):
        some = rows[start : start + size]
        names = [str(Path(found.names[row]).with_suffix("")) for row in some]
        masks = None if segmentations is None else masks_of(segmentations, names)
        yield found.read(some).to(like), found.labels[some].to(like.device), masks


def add_perturbations(means: Means, model: prisma.ViT, images: Tensor, labels: Tensor, masks: Tensor | None) -> None:
    """The rates with attention cut, and with tokens removed."""
    for kind in ("self_only", "no_cls"):
        cut = prisma.attention_perturbation(model, images, labels, kind=kind, compat=COMPAT)
        means[kind].add(cut.rate)
        means[f"{kind}, like for like"].add(cut.first[:, model.config.n_prefix :].mean(1))
    for remove, kind in ({} if masks is None else {"context": "class tokens", "class_label": "context tokens"}).items():
        assert masks is not None
        left = prisma.token_perturbation(model, images, labels, masks, remove=remove, compat=COMPAT)
        patches = left.clean_first[:, model.config.n_prefix :]
        means[kind].add(patches.masked_fill(left.first[:, model.config.n_prefix :].isnan(), torch.nan))
        means[f"{kind} alone"].add(left.rate)
        same = prisma.token_perturbation(model, images, labels, masks, remove=remove)
        means[f"{kind}, like for like"].add(same.clean_rate)
        means[f"{kind} alone, like for like"].add(same.rate)


def add_identifiability(means: Means, model: prisma.ViT, images: Tensor, labels: Tensor) -> None:
    """Table 1.3: at which share of patches the class comes first in the last block."""
    read = prisma.class_identifiability(model, images, labels, control=True)
    means["identifiable"].add(read.rate[:, -1])
    means["any"].add(read.any_patch[:, -1])
    with torch.no_grad():
        means["accuracy"].add((model(images).argmax(-1) == labels).double())
    assert read.control_any_patch is not None
    means["random"].add(read.of("patches", control=True)[:, -1])
    means["random, any"].add(read.control_any_patch[:, -1])


def measure(
    model: prisma.ViT,
    found: Pictures,
    rows: list[int],
    segmentations: Segmentations | None,
    size: int,
    tables: Sequence[str] = TABLES,
    probes: Mapping[str, Probes] = MappingProxyType({}),
) -> dict[str, float]:
    """Name -> percent."""
    means = Means()
    for images, labels, masks in batches(model, found, rows, segmentations, size):
        if "identifiability" in tables:
            add_identifiability(means, model, images, labels)
        if "perturbation" in tables:
            add_perturbations(means, model, images, labels, masks)
        if "change" in tables:
            add_change(means, model, images, labels)
        if "memories" in tables:
            add_memories(means, model, images, labels)
        if "removal" in tables:
            add_removal(means, model, images, labels)
        add_probes(means, model, probes, images, labels)
    return summary(means.percents(), model.config.n_patches)


def table(measured: Mapping[str, float], published: Mapping[str, float]) -> str:
    """Published and measured, side by side, in percent."""
    lines = [f"{'':<48}{'published':>10}{'measured':>10}"]
    for name, value in measured.items():
        there = f"{published[name]:>10.2f}" if name in published else f"{'-':>10}"
        lines.append(f"{name:<48}{there}{value:>10.2f}")
    return "\n".join(lines)


def trained(loaded: prisma.Loaded, model: prisma.ViT, folder: Path, batch: int) -> dict[str, Probes]:
    """Probes of the first ten pictures of each class of a folder."""
    found = pictures(folder, loaded.transform, loaded.config.input_shape, classes=class_names(loaded))
    rows, like = chosen_rows(found, 10), model.embed.prefix
    assert found.labels is not None
    return probes_of(model, found.read(rows).to(like), found.labels[rows].to(like.device), batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="as for prisma.load: timm/NAME, or a folder")
    parser.add_argument("--images", required=True, type=Path, help="a folder for each class")
    parser.add_argument("--masks", type=Path, help="segmentations in ImageNet-S's form, of the same names")
    parser.add_argument("--train", type=Path, help="a folder for each class, of other pictures, for the probes")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--per-class", type=int, default=5)
    parser.add_argument("--limit", type=int, help="use only the first N of the chosen pictures")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    loaded = prisma.load(args.model)
    model = loaded.model.to(args.device)
    found = pictures(args.images, loaded.transform, loaded.config.input_shape, classes=class_names(loaded))
    if args.masks is not None and loaded.transform is None:
        raise PrismaError("expected a model with a transform, by which masks are cut as pictures are; found none")
    masks = None if args.masks is None else Segmentations.of_folder(args.masks, loaded.transform)  # type: ignore[arg-type]
    rows = chosen_rows(found, args.per_class)[: args.limit]
    probes = {} if args.train is None else trained(loaded, model, args.train, args.batch)
    print(f"{args.model}: {len(rows)} pictures")
    measured = measure(model, found, rows, masks, args.batch, args.tables, probes)
    print(table(measured, published_of(args.model)))


if __name__ == "__main__":
    main()
