import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import prisma
from prisma.editing.edit_class import edit_class
from prisma.editing.folder import BEFORE, EDIT, is_edited, read_edited, write_edited
from prisma.editing.measuring import measure_edit
from prisma.editing.weight_edit import source_of
from prisma.errors import PrismaError


def test_the_folder_is_a_checkpoint_that_knows_what_it_was(digits, tmp_path) -> None:
    model = digits.loaded.model
    edit = edit_class(*digits.train, 3, 8, method="class-row", names=digits.loaded.labels)
    measures = measure_edit(model, edit, digits.test_images, digits.test_labels, 3, 8)
    write_edited(tmp_path / "out", digits.loaded, edit, measures)
    loaded, pair = prisma.load(tmp_path / "out"), read_edited(tmp_path / "out")
    assert is_edited(tmp_path / "out")
    assert loaded.labels == digits.loaded.labels and loaded.transform == digits.loaded.transform
    assert source_of(loaded.model) == source_of(pair.after.model) == source_of(edit.edited(model))
    assert source_of(pair.before.model) == source_of(model)
    assert pair.measures == measures.to_dict()
    assert dict(pair.edit.about) == dict(edit.about)
    with pytest.raises(PrismaError, match="a new or empty folder"):
        write_edited(tmp_path / "out", digits.loaded, edit)


def test_files_that_do_not_belong_together_are_refused(digits, tmp_path) -> None:
    write_edited(tmp_path / "one", digits.loaded, edit_class(*digits.train, 3, 8, method="class-row"))
    write_edited(tmp_path / "two", digits.loaded, edit_class(*digits.train, 1, 2, method="class-row"))
    shutil.copytree(tmp_path / "one", tmp_path / "mixed")
    shutil.copy(tmp_path / "two" / "model.safetensors", tmp_path / "mixed")
    with pytest.raises(PrismaError, match="to be those before with the edit; found others"):
        read_edited(tmp_path / "mixed")
    kept = load_file(tmp_path / "one" / BEFORE)
    save_file({name: x + 1 for name, x in kept.items()}, tmp_path / "one" / BEFORE)
    with pytest.raises(PrismaError, match="expected the weights before the edit"):
        read_edited(tmp_path / "one")
    save_file({"other": torch.zeros(1)}, tmp_path / "one" / BEFORE)
    with pytest.raises(PrismaError, match=r"weights readout\.head\.weight in .*; found other"):
        read_edited(tmp_path / "one")
    (tmp_path / "two" / EDIT).unlink()
    assert not is_edited(tmp_path / "two")


def test_an_edit_of_another_model_is_not_written(digits, tmp_path) -> None:
    edit = edit_class(*digits.train, 3, 8, method="class-row")
    other = prisma.load("mice/digits")
    with torch.no_grad():
        other.model.embed.prefix += 1
    with pytest.raises(PrismaError, match="the model that the edit was made for"):
        write_edited(tmp_path / "out", other, edit)
    assert not (tmp_path / "out").exists()
