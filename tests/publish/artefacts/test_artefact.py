"""An artefact's commit states every file, and its manifest survives the disk."""

import json

import pytest

from prisma.errors import PrismaError
from prisma.publish.artefacts.artefact import Artefact, ArtefactManifest
from prisma.publish.commits import File
from prisma.repository import ARTEFACT

ABOUT = {"weights": "ab", "losses": [[1.0, 0.5]]}
FILES = (File.of("a.json", b"{}"), File.of("a.safetensors", b"numbers"))


def artefact(card: str = "# A card\n") -> Artefact:
    return Artefact("tuned-lens", ABOUT, FILES, card)


def data(one: Artefact) -> bytes:
    return b"".join(one.main({}).file(ARTEFACT).chunks())


def test_the_manifest_states_every_other_file() -> None:
    commit, manifest = artefact().main({}), ArtefactManifest.parse(data(artefact()))
    assert manifest.files == tuple(file.record for file in commit.files if file.name != ARTEFACT)
    assert (manifest.kind, manifest.about, manifest.id) == ("tuned-lens", ABOUT, artefact().run)
    assert manifest.to_json() == data(artefact())
    assert artefact().message({}) == "A tuned lens of 2 files"


def test_the_id_is_that_of_the_content() -> None:
    assert artefact("# Another card\n").run == artefact().run
    assert Artefact("tuned-lens", ABOUT, FILES[:1], "").run != artefact().run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "expected format 1 .*found 2: it was published by another version"),
        ({"kind": 3}, "expected kind of manifest.json"),
        ({"files": [{"name": "a"}]}, "lacks the field"),
        ({"about": []}, "found something else"),
        ({"more": 1}, "found something else"),
    ],
)
def test_what_is_no_manifest_is_refused(change: dict[str, object], words: str) -> None:
    values = {**json.loads(data(artefact())), **change}
    with pytest.raises(PrismaError, match=words):
        ArtefactManifest.parse(json.dumps(values).encode())
    with pytest.raises(PrismaError, match="expected text in UTF-8"):
        ArtefactManifest.parse(b"\xff")
