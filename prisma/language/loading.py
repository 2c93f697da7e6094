"""Language models of transformers by name or folder, with their tokenizers."""

from pathlib import Path
from typing import Any

from torch import nn

from prisma.errors import PrismaError, expect_packages, quoted
from prisma.language.mouse import FOLDER


def load(
    ref: str | Path, device: str = "cpu", *, revision: str | None = None, hub: str | Path | None = None
) -> tuple[nn.Module, Any]:
    """A causal language model and its tokenizer.

    Args:
        ref: `"mice/facts"` (the mouse of this package), a folder that transformers saved, or a name on the Hub.
        revision: of a name on the Hub: a branch, a tag or a commit.
        hub: a folder hub that has it; by default the Hub or its cache.

    Raises:
        PrismaError: there is no such model, or it is no causal language model of transformers.
    """
    expect_packages("transformers", extra="pretrained")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    known = {f"mice/{FOLDER.name}": FOLDER}
    if str(ref).startswith("mice/") and str(ref) not in known:
        raise PrismaError(f"expected a language mouse, one of {', '.join(known)}; found {quoted(str(ref))}")
    place = known.get(str(ref), ref)
    where: dict[str, Any] = {} if revision is None else {"revision": revision}
    where |= {} if hub is None else {"cache_dir": hub, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(place, **where)
        tokenizer = AutoTokenizer.from_pretrained(place, **where)
    except (OSError, ValueError, KeyError) as error:  # what transformers raises for what it cannot find or read
        raise PrismaError(
            f"expected a causal language model of transformers at {quoted(str(ref))}; found none: {str(error)[:300]}"
        ) from None
    return model.to(device).eval(), tokenizer
