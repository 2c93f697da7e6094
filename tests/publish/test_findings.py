"""A finding is printable, and tells what is wrong with a repository from what is wrong with the network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.publish import Finding
from prisma.publish.calls import RefusedError, UnreachableError
from prisma.publish.findings import gathered, noted


def test_findings_are_data() -> None:
    assert Finding("main", "odd").to_dict() == {"revision": "main", "problem": "odd"}


def test_they_are_printable_and_short() -> None:
    found = Finding("a\x1b[2J\u202e" + "b" * 1000, "c\n" + "d" * 10_000)
    assert found.revision.startswith("a\\x1b[2J\\u202eb")
    assert (len(found.revision), len(found.problem)) == (200, 4000)
    assert found.problem.startswith("c\\nd")


def test_what_was_found_before_an_error_counts() -> None:
    def problems() -> Iterator[str]:
        yield "first"
        raise PrismaError("expected weights in /tmp/x/model.safetensors")

    assert gathered(problems(), Path("/tmp/x")) == ["first", "expected weights in model.safetensors"]


@pytest.mark.parametrize(
    ("error", "is_problem"),
    [
        (PrismaError("broken"), True),
        (RefusedError.of("send a", 404, "none"), True),
        (RefusedError.of("send a", 403, "no"), False),
        (RefusedError.of("send a", 401, "no"), False),
        (UnreachableError("no answer"), False),
    ],
)
def test_silence_and_refusal_of_the_hub_are_no_problem_of_the_repository(error: PrismaError, is_problem: bool) -> None:
    problems = list[str]()
    if is_problem:
        with noted(problems):
            raise error
        assert problems == [str(error)]
    else:
        with pytest.raises(type(error)), noted(problems):
            raise error
        assert problems == []
