"""What a coder reads of a source, and with which tokens."""

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.inputs import read_by, source_for, tokens_of, written_by
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of

FIRST, SECOND = "blocks.0.resid_post", "blocks.1.resid_post"


def test_sites_are_put_side_by_side_in_the_coders_order() -> None:
    acts = {FIRST: torch.ones(2, 3), SECOND: torch.zeros(2, 4), "ln_final": torch.full((2, 5), 7.0)}
    coder = random_coder("topk", 7, 9, 2, 0, sites=(SECOND, FIRST), widths=(4, 3))
    assert read_by(coder, acts).tolist() == [[0, 0, 0, 0, 1, 1, 1]] * 2 and written_by(coder, acts).shape == (2, 7)
    own = random_coder(
        "topk", 3, 9, 2, 0, sites=(FIRST,), target=FIRST, d_out=3, centred=False
    )  # its target is its site
    assert torch.equal(read_by(own, acts), acts[FIRST]) and torch.equal(written_by(own, acts), acts[FIRST])
    across = random_coder("topk", 3, 9, 2, 0, sites=(FIRST,), target="ln_final", d_out=5, centred=False)
    assert torch.equal(written_by(across, acts), acts["ln_final"])


def test_a_site_of_one_model_by_name_is_found_and_of_two_is_refused() -> None:
    coder = random_coder("topk", 3, 9, 2, 0, sites=(FIRST,))
    acts = {f"{FIRST}@a": torch.ones(2, 3)}
    assert torch.equal(read_by(coder, acts), acts[f"{FIRST}@a"])
    with pytest.raises(PrismaError, match=rf"the site {FIRST} of this coder, of one model; found {FIRST}@a, {FIRST}@b"):
        read_by(coder, {**acts, f"{FIRST}@b": torch.ones(2, 3)})
    with pytest.raises(PrismaError, match="of this coder, of one model; found ln_final"):
        read_by(coder, {"ln_final": torch.ones(2, 3)})


def test_the_tokens_are_those_of_its_training() -> None:
    model = model_of("registers", torch.float32)
    images, coder = images_of(model, 2), random_coder("topk", 12, 9, 2, 0, sites=(FIRST,)).float()
    assert tokens_of(coder) == "all" and len(source_for(coder, model, images).roles) == 13
    coder.metadata["training"] = {"tokens": ["class", "patches"]}
    found = source_for(coder, model, images).read([1])[FIRST]
    assert torch.allclose(found, prisma.record(model, images, FIRST)[1][FIRST][1:, [0, *range(4, 13)]], atol=1e-6)
    assert set(source_for(coder, model, images, "registers").roles) == {"registers"}
    for tokens, message in ((5, "expected tokens to be text or a list of which each is text; found 5"),):
        with pytest.raises(PrismaError, match=message):
            source_for(coder, model, images, tokens)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="expected a coder that states its site; found one that does not"):
        source_for(random_coder("topk", 12, 9, 2, 0), model, images)
    with pytest.raises(PrismaError, match="expected a sparse coder; found a int"):
        source_for(3, model, images)  # type: ignore[arg-type]
