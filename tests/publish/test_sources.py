"""Both places can be read by an audit: what the protocol asks for is there, and answers alike."""

from pathlib import Path

from prisma.checkpoint import WEIGHTS
from prisma.publish.folder_source import FolderSource
from prisma.publish.hub_source import on_the_hub
from prisma.publish.hugging_face_hub import is_same
from prisma.publish.sources import Source
from prisma.repository import MANIFEST, Published
from tests.hubserver.running import Hub
from tests.publish.places import REPO, InFolder, Place


def read(source: Source, place: Place) -> None:
    labels = source.labels()
    assert labels["main"] == place.labels()["main"]
    listing = source.listing(labels["step-000002"])
    assert set(listing) == {"config.json", WEIGHTS}
    folder = source.folder(labels["step-000002"], listing)
    assert (folder / WEIGHTS).read_bytes() == place.read("step-000002", WEIGHTS)
    assert source.header(labels["step-000002"], WEIGHTS)["step"] == "2"
    assert source.problems(labels["step-000002"], ours=True) == []
    message, changed = source.message(labels["main"], MANIFEST), source.changed_by(labels["main"], [MANIFEST])
    if source.is_local:
        assert (message, changed) == (None, {})
    else:
        assert message and message.startswith("Run ")
        assert changed == {MANIFEST: labels["main"]}
    source.forget()


def test_a_repository_is_read_in_both_places(place: Place) -> None:
    if isinstance(place, InFolder):
        read(FolderSource(Published(REPO, place.hub)), place)
    else:
        with on_the_hub(REPO) as source:
            read(source, place)


def test_both_list_the_same_files(published_server: Hub, hub: Path) -> None:
    with on_the_hub(REPO) as source:
        there, here = (s.listing(s.labels()["step-000004"]) for s in (source, FolderSource(Published(REPO, hub))))
    assert all(is_same(there[name], here[name]) for name in here)
    assert published_server.asked("tree")
