"""Language models are found by name or folder, and what is none is said in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from prisma.errors import PrismaError
from prisma.language.loading import load
from prisma.language.mouse import FOLDER
from tests.language.families import tiny


def test_a_mouse_and_a_folder(loaded: tuple[nn.Module, Any], words: Any, tmp_path: Path) -> None:
    model, tokenizer = loaded
    assert not model.training and tokenizer.decode(tokenizer("Ada plays the")["input_ids"]) == "<bos> Ada plays the"
    tiny("GPT2").save_pretrained(tmp_path)  # type: ignore[operator]
    words.save_pretrained(tmp_path)
    assert type(load(tmp_path)[0]).__name__ == "GPT2LMHeadModel"


def test_what_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=f"one of mice/{FOLDER.name}; found 'mice/none'"):
        load("mice/none")
    with pytest.raises(PrismaError, match=r"expected a causal language model of transformers at .* found none"):
        load(tmp_path)
