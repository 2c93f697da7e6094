"""Language models of transformers by name or folder, with their tokenizers."""

from pathlib import Path
from typing import Any

from torch import nn

from prisma.errors import PrismaError, expect_packages, quoted
from prisma.language.mouse import FOLDER


def load(ref: str | Path, device: str = "cpu") -> tuple[nn.Module, Any]:
    """A causal language model and its tokenizer.

    Args:
        ref: `"mice/facts"` (the mouse of this package), a folder that transformers saved, or a name on the Hub.

    Raises:
        PrismaError: there is no such model, or it is no causal language model of transformers.
    """
    expect_packages("transformers", extra="pretrained")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    known = {f"mice/{FOLDER.name}": FOLDER}
    if str(ref).startswith("mice/") and str(ref) not in known:
        raise PrismaError(f"expected a language mouse, one of {', '.join(known)}; found {quoted(str(ref))}")
    place = known.get(str(ref), ref)
    try:
        model = AutoModelForCausalLM.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError) as error:  # what transformers raises for what it cannot find or read
        raise PrismaError(
            f"expected a causal language model of transformers at {quoted(str(ref))}; found none: {str(error)[:300]}"
        ) from None
    return model.to(device).eval(), tokenizer
