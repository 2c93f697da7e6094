"""A name of a repository that the Hub does not allow is told the rule that it breaks, and a name that is allowed."""

import re

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

import prisma
from prisma import PrismaError
from prisma.repo_names import expect_repo_name, is_repo_name
from prisma.repository import Published

LONG = "x" * 100
WRONG = {
    "": "which is empty",
    "tiny": "which has no owner: write OWNER/tiny",
    "a/b/c": "which has 3 parts instead of two: write OWNER/NAME",
    "lab/": "of which a part is empty",
    "/tiny": "of which a part is empty",
    "a--b/x": "which has '--', which the Hub does not allow: write 'a-b/x'",
    "a/b--c": "which has '--', which the Hub does not allow: write 'a/b-c'",
    "a/b..c": "which has '..', which the Hub does not allow: write 'a/b.c'",
    "lab/..": "which has '..'",
    "lab/x.git": "which ends in '.git', which the Hub does not allow: write 'lab/x'",
    "lab/x-": "of which 'x-' begins or ends with '-' or '.': write 'lab/x'",
    "-l/x": "of which '-l' begins or ends with '-' or '.': write 'l/x'",
    "my lab/x y": "which has a space in it: write 'my-lab/x-y'",
    "lab/x@v1": "which has '@' in it: write 'lab/x-v1'",
    "läb/x": "which has 'ä' in it: write 'l-b/x'",
    "lab/\udc80x": r"which has '\udc80' in it: write 'lab/x'",
    f"lab/{LONG}": f"which has 104 characters, more than 96: write 'lab/{'x' * 92}'",
}


@pytest.mark.parametrize("name", WRONG)
def test_the_rule_is_named(name: str) -> None:
    for call in (expect_repo_name, Published):
        with pytest.raises(PrismaError, match=re.escape(WRONG[name])) as error:
            call(name)
        assert str(error.value).startswith("expected OWNER/NAME in letters, digits, '.', '_' and '-'; found ")


@pytest.mark.parametrize("prefix", ["", "hf/", "open_clip/"])
@pytest.mark.parametrize("name", ["a--b/x", "lab/x.git", f"lab/{LONG}", "la b/x", "lab/x-"])
def test_loading_names_it_for_every_library(prefix: str, name: str) -> None:
    with pytest.raises(PrismaError, match=re.escape(WRONG.get(name, "which has a space in it: write 'la-b/x'"))):
        prisma.load(prefix + name)


def test_an_old_repository_has_no_owner() -> None:
    expect_repo_name("gpt2", owner=False)
    for name in ("a--b", "x.git", "a b"):
        with pytest.raises(PrismaError, match="expected OWNER/NAME"):
            expect_repo_name(name, owner=False)


@given(st.from_regex(r"[a-z._ä -]{0,4}/[a-zA-Z0-9._\- ]{0,5}(\.git)?", fullmatch=True))
def test_it_is_the_hubs_own_rule_and_what_is_offered_is_allowed(name: str) -> None:
    if is_repo_name(name):
        validate_repo_id(name)
        return
    with pytest.raises(PrismaError) as error:
        expect_repo_name(name)
    if offered := re.search(r": write '(.*)'$", str(error.value)):
        expect_repo_name(offered[1])
        validate_repo_id(offered[1])


@given(st.from_regex(r"[a-z._-]{1,4}/[a-z0-9._-]{1,5}", fullmatch=True))
def test_nothing_is_refused_that_the_hub_takes(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return
    assert is_repo_name(name)
