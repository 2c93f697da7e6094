"""An edited model as a checkpoint folder that knows what was done to it, and what it was before.

    config.json, model.safetensors    the edited model, as every checkpoint: `prisma.load` reads it
    edit.safetensors                  the edit (`WeightEdit`): u and v of each weight, and what it is for
    before.safetensors                the weights as they were, of those that were edited: with them it can be undone
    measures.json                     what the edit does, where it was measured (`measuring.EditMeasures`)

All is there or nothing. Reading checks that the weights before, with the edit, are the weights after, bitwise, and that
the model before has the hash that the edit states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prisma.checkpoint import read_checkpoint, read_tensors, to_safetensors, write_checkpoint
from prisma.editing.measuring import EditMeasures
from prisma.editing.weight_edit import WeightEdit, source_of
from prisma.errors import PrismaError, shown
from prisma.files import new_folder, read_json, write_atomic, write_json
from prisma.filesystem import given
from prisma.loaded import Loaded, load
from prisma.vit import ViT

EDIT, BEFORE, MEASURES = "edit.safetensors", "before.safetensors", "measures.json"


@dataclass(frozen=True)
class Edited:
    """What a folder of an edited model holds.

    Attributes:
        after, before: the models, with the same transform and class names.
        edit: what lies between them.
        measures: the content of `measures.json`.
    """

    after: Loaded
    before: Loaded
    edit: WeightEdit
    measures: Mapping[str, Any]


def is_edited(folder: Path | str) -> bool:
    """Whether a folder is that of an edited model."""
    return (given(folder) / EDIT).is_file()


def write_edited(folder: Path | str, loaded: Loaded, edit: WeightEdit, measures: EditMeasures | None = None) -> None:
    """Write the folder of an edited model, whole or not at all.

    Args:
        loaded: the model before the edit, which is left as it is.

    Raises:
        PrismaError: the folder has entries, the edit is not for this model, or nothing can be written.
    """
    if edit.about.get("model") not in (None, source_of(loaded.model)):
        raise PrismaError(
            f"expected the model that the edit was made for, {shown(str(edit.about['model'])[:12])}; found "
            f"{source_of(loaded.model)[:12]}"
        )
    after = edit.edited(loaded.model)
    weights = loaded.model.state_dict()
    kept = {part.weight: weights[part.weight] for part in edit.parts}
    transform = None if loaded.transform is None else loaded.transform.to_dict()
    with new_folder(given(folder)) as partial:
        write_checkpoint(partial, after, labels=loaded.labels, transform=transform, header={"edited": "true"})
        edit.write(partial / EDIT)
        write_atomic(partial / BEFORE, to_safetensors(kept, {"kind": "weights before an edit"}))
        write_json(partial / MEASURES, {} if measures is None else measures.to_dict())


def read_edited(folder: Path | str) -> Edited:
    """What `write_edited` wrote, checked.

    Raises:
        PrismaError: a file is absent or foreign; the weights before, with the edit, are not those after, or they are
            not those of the model that the edit states.
    """
    folder = given(folder)
    after, edit, (kept, _) = load(folder), WeightEdit.read(folder / EDIT), read_tensors(folder / BEFORE)
    before = _with_weights(folder, kept, edit)
    if (stated := edit.about.get("model")) is not None and stated != source_of(before):
        raise PrismaError(
            f"expected the weights before the edit of {shown(str(stated)[:12])} in {folder / BEFORE}; found those of "
            f"{source_of(before)[:12]}"
        )
    if source_of(edit.edited(before)) != source_of(after.model):
        raise PrismaError(f"expected the weights in {folder} to be those before with the edit; found others")
    return Edited(after, replace(after, model=before), edit, read_json(folder / MEASURES))


@torch.no_grad()
def _with_weights(folder: Path, kept: Mapping[str, torch.Tensor], edit: WeightEdit) -> ViT:
    """The edited model with some of its weights replaced by those before."""
    model = read_checkpoint(folder).model
    weights = model.state_dict()
    expected = sorted(part.weight for part in edit.parts)
    if sorted(kept) != expected or any(
        name not in weights or kept[name].shape != weights[name].shape for name in expected
    ):
        raise PrismaError(
            f"expected the weights {', '.join(map(shown, expected))} in {folder / BEFORE}; found "
            f"{', '.join(map(shown, sorted(kept))) or 'none'}"
        )
    model.load_state_dict({**weights, **kept})
    return model
