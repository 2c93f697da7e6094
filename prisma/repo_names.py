"""Which names of repositories the Hub allows; for any other, the rule that it breaks and a name to write instead."""

import re
from collections.abc import Iterator

from prisma.errors import PrismaError, quoted

LONGEST = 96  # characters of OWNER/NAME
ALLOWED = "letters, digits, '.', '_' and '-'"


def is_repo_name(repo: str) -> bool:
    """Whether the Hub allows this as OWNER/NAME."""
    return next(_broken(repo), None) is None


def expect_repo_name(repo: str, *, owner: bool = True) -> None:
    """Check the name of a repository.

    Args:
        owner: whether the name must have one; a few old repositories of the Hub have none.

    Raises:
        PrismaError: the Hub does not allow it; the message names the rule, and a name that is allowed if one is near.
    """
    if not owner and isinstance(repo, str) and repo and "/" not in repo and is_repo_name(f"o/{repo}"):
        return
    if (why := next(_broken(repo), None)) is not None:
        better = _repaired(repo) if isinstance(repo, str) else None
        raise PrismaError(
            f"expected OWNER/NAME in {ALLOWED}; found {quoted(repo, 2 * LONGEST)}, {why}"
            + (f": write {better!r}" if better else "")
        )


def _broken(repo: str) -> Iterator[str]:
    """What is wrong with a name, one phrase for each rule that it breaks, the first of which is to be said."""
    if not isinstance(repo, str):
        yield "which is no text"
        return
    parts = repo.split("/")
    if not repo.strip():
        yield "which is empty"
    if foreign := re.search(r"[^\w./-]", repo, re.ASCII):
        what = "a space" if foreign[0] == " " else quoted(foreign[0])
        yield f"which has {what} in it"
    if len(parts) == 1:
        yield f"which has no owner: write OWNER/{repo}, with a user or an organisation as OWNER"
    if len(parts) > 2:
        yield f"which has {len(parts)} parts instead of two: write OWNER/NAME"
    if not all(parts):
        yield "of which a part is empty"
    for twice in ("--", ".."):
        if twice in repo:
            yield f"which has {twice!r}, which the Hub does not allow"
    if repo.endswith(".git"):
        yield "which ends in '.git', which the Hub does not allow"
    for part in parts:
        if part and (part[0] in "-." or part[-1] in "-."):
            yield f"of which {quoted(part)} begins or ends with '-' or '.'"
    if len(repo) > LONGEST:
        yield f"which has {len(repo)} characters, more than {LONGEST}"


def _repaired(repo: str) -> str | None:
    """A name that is allowed and near; None if there is none, or the parts that are meant cannot be told."""
    parts = re.sub(r"[^\w./-]+", "-", repo.strip(), flags=re.ASCII).strip("/").split("/")
    if len(parts) != 2:
        return None
    whole = [re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", part)) for part in parts]
    name = re.sub(r"(\.git)+$", "", whole[1])
    owner, name = whole[0].strip("-."), name[: max(LONGEST - len(whole[0]) - 1, 0)].strip("-.")
    return better if is_repo_name(better := f"{owner}/{name}") else None
