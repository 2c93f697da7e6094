"""The numbers of a coder beside it: which weights they are of."""

from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.sparse.coders import CoderConfig, drawn
from prisma.sparse.evaluated import EVALUATION, read_evaluation, write_evaluation
from prisma.sparse.files import write_coder


def test_numbers_are_of_the_weights_beside_them(tmp_path: Path) -> None:
    config = CoderConfig("topk", 4, 8, 2)
    with pytest.raises(PrismaError, match="expected the folder of a coder"):
        write_evaluation(tmp_path, [], "digits", 3)
    write_coder(tmp_path, drawn(config))
    with pytest.raises(PrismaError, match="found none: prisma sparse eval CODER"):
        read_evaluation(tmp_path)
    rows = [{"coder": "coder", "tokens": "all", "fvu": 0.25, "relative_bias": float("nan")}]
    write_evaluation(tmp_path, rows, "digits", 3)
    found = read_evaluation(tmp_path)
    assert (found["images"], found["n"]) == ("digits", 3)
    assert found["rows"] == [{"coder": "coder", "tokens": "all", "fvu": 0.25, "relative_bias": None}]
    write_coder(tmp_path, drawn(config, seed=1))
    with pytest.raises(PrismaError, match="measure the coder again with prisma sparse eval --write"):
        read_evaluation(tmp_path)
    (tmp_path / EVALUATION).write_text("{}")
    with pytest.raises(PrismaError, match="expected the numbers of a coder"):
        read_evaluation(tmp_path)
