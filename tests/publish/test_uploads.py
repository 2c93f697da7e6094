"""Files are sent ahead, many at a time, each once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from huggingface_hub import HfApi

from prisma.publish.calls import Calls
from prisma.publish.commits import Commit, File
from prisma.publish.remote import Remote
from prisma.publish.uploads import BATCH, Uploads
from tests.hubserver.running import Hub

REPO = "lab/tiny"
CONFIG = File.of("config.json", b"{}")


@pytest.fixture
def uploads(server: Hub) -> Uploads:
    HfApi().create_repo(REPO)
    return Uploads(Remote(REPO, Calls(sleep=lambda _: None)))


def commit(i: int) -> Commit:
    return Commit((CONFIG, File.of("model.safetensors", bytes(2000) + i.to_bytes(4, "big"))))


def test_files_of_many_commits_are_asked_for_together(uploads: Uploads, server: Hub) -> None:
    commits = [commit(i) for i in range(2 * BATCH)]
    uploads.prepare(commits)
    with ThreadPoolExecutor(1) as pool:
        for i, made in enumerate(commits):
            additions = uploads.additions(made.files if i == 0 else made.files[1:], "main", pool)
            assert [addition.path_in_repo for addition in additions] == [file.name for file in made.files[i > 0 :]]
            parent = HfApi().create_commit(REPO, additions, commit_message=f"{i}").oid
            record = uploads.remote.listing(parent)["model.safetensors"]
            assert record.sha256 == made.file("model.safetensors").sha256
    asked = Counter(row["route"] for row in server.requests)
    assert asked["preupload"] == asked["lfs_batch"] == 3  # the configuration is a file too
    assert asked["lfs_put"] == 2 * BATCH


def test_what_was_not_prepared_is_sent_with_its_commit(uploads: Uploads, server: Hub) -> None:
    with ThreadPoolExecutor(1) as pool:
        (addition,) = uploads.additions([CONFIG], "main", pool)
    assert (addition.path_in_repo, addition.path_or_fileobj) == ("config.json", b"{}")
    assert server.asked("preupload") == []


def test_a_file_that_is_asked_for_again_is_made_again(uploads: Uploads, server: Hub) -> None:
    """After a lost answer, of which the client's objects say nothing."""
    made = commit(0)
    uploads.prepare([made])
    with ThreadPoolExecutor(1) as pool:
        first = uploads.additions(made.files, "main", pool)
        HfApi().create_commit(REPO, first, commit_message="x")
        again = uploads.additions(made.files, "main", pool)
    assert HfApi().create_commit(REPO, again, commit_message="x").oid == HfApi().model_info(REPO).sha
    assert len(server.asked("lfs_put")) == 1
