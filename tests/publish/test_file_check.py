"""Files against the manifest: absent, more, others, unsafe; and the message of the manifest's commit."""

from prisma.publish.commits import File, FileRecord
from prisma.publish.file_check import file_problems, message_problems
from prisma.publish.manifest import message_with
from tests.publish.messages import Messages

A, B = File.of("a.json", b"{}").record, File.of("b.txt", b"text").record


def test_each_difference_is_a_problem() -> None:
    assert not list(file_problems((A, B), {"a.json": A, "b.txt": B}))
    other = FileRecord("b.txt", "0" * 64, 4, "")
    found = list(file_problems((A, B), {"b.txt": other, "c.py": B}))
    assert [problem.split(";")[0] for problem in found] == [
        "expected a file a.json, as in the manifest",
        f"expected b.txt of 4 bytes of SHA-256 {B.sha256}, as in the manifest",
        "expected only the files of the manifest",
    ]
    assert found[2].endswith("found c.py, a program")


def test_the_message_states_the_hash_of_this_file() -> None:
    for message, words in (
        (None, None),
        (message_with("Run 1", A.sha256, "a.json"), None),
        (message_with("Run 1", A.sha256), "expected a commit message that states the SHA-256 of a.json; found"),
        (message_with("Run 1", B.sha256, "a.json"), f"expected a.json of SHA-256 {B.sha256}, as its commit message"),
        ("Update", "found Update"),
    ):
        found = list(message_problems(Messages({"a.json": A}, message), "commit", "a.json"))
        assert [words in problem for problem in found] == [True] if words else not found  # type: ignore[operator]
