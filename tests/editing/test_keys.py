import pytest
import torch

from prisma.editing.keys import class_of, covariances, key_site, tokens_of
from prisma.errors import PrismaError
from prisma.runs import record


def test_each_role_has_its_own_covariance_of_its_own_tokens(digits) -> None:
    images = digits.images[:12]
    coverage = torch.zeros(12, 16)
    coverage[:, :3] = 0.5
    found = covariances(
        digits.loaded.model, images, 1, ("class", "object", "background", "patches"), coverage=coverage, batch=5
    )
    with torch.no_grad():
        keys = record(digits.loaded.model, images, "blocks.1.mlp.post")[1]["blocks.1.mlp.post"].double()
    of = {"class": keys[:, :1], "object": keys[:, 1:4], "background": keys[:, 4:], "patches": keys[:, 1:]}
    for role, some in of.items():
        rows = some.flatten(0, 1)
        assert torch.allclose(found[role].matrix, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)
        assert found[role].n == len(rows)
        assert found[role].of == f"blocks.1.mlp.post at {role}"


def test_classes_are_found_by_number_and_by_name() -> None:
    assert class_of("7", 3, ("7", "b", "1")) == 0  # a name goes before a number
    assert class_of("2", 3, ("a", "b", "c")) == 2
    with pytest.raises(PrismaError, match="found 'x': the model has no names: give the number"):
        class_of("x", 3)
    with pytest.raises(PrismaError, match="a class from 0 to 2; found -1"):
        class_of(-1, 3)


def test_roles_and_layers_that_are_not_there(digits) -> None:
    with pytest.raises(PrismaError, match="a role of tokens: class, object, background, patches; found 'cls'"):
        tokens_of(digits.loaded.config, "cls", 2)
    with pytest.raises(PrismaError, match="a layer from 0 to 1; found -1"):
        key_site(digits.loaded.model, -1)
    with pytest.raises(PrismaError, match=r"coverage of 2 images.*found \[2, 9\]"):
        tokens_of(digits.loaded.config, "object", 2, torch.zeros(2, 9))
