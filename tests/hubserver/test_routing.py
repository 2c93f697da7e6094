"""Routes are found on the raw path."""

import re
from pathlib import Path

import pytest

from tests.hubserver import application
from tests.hubserver.routing import HUB, ROUTES, STORAGE, find

A, B = f"/api/models/{'o' * 3}/n", "/models/o/n/" + "a" * 64


@pytest.mark.parametrize(
    ("origin", "method", "path", "name", "arguments"),
    [
        (HUB, "GET", f"{A}/tree/ck%2Fstep-2/d%2Fe", "tree", {"revision": "ck/step-2", "path": "d/e"}),
        (HUB, "GET", f"{A}/revision/refs%2Fpr%2F1", "info", {"revision": "refs/pr/1"}),
        (HUB, "HEAD", "/datasets/o/n/resolve/main/d/e%20f.bin", "resolve", {"web": "datasets/", "path": "d/e f.bin"}),
        (HUB, "POST", "/spaces/o/n.git/info/lfs/objects/batch", "lfs_batch", {"web": "spaces/", "name": "n"}),
        (HUB, "POST", "/o/n.git/info/lfs/objects/verify", "lfs_verify", {"owner": "o", "name": "n"}),
        (STORAGE, "PUT", B, "lfs_put", {"oid": "a" * 64}),
    ],
)
def test_an_encoded_slash_separates_nothing(
    origin: str, method: str, path: str, name: str, arguments: dict[str, str]
) -> None:
    found = find(origin, method, path)
    assert found is not None
    assert found[0].name == name
    assert arguments.items() <= found[1].items()


@pytest.mark.parametrize(
    ("origin", "method", "path"),
    [(HUB, "GET", f"{A}/runtime"), (HUB, "PUT", B), (STORAGE, "GET", A), (HUB, "PATCH", A), (HUB, "GET", f"{A}/tree")],
)
def test_what_is_no_route(origin: str, method: str, path: str) -> None:
    assert find(origin, method, path) is None


def test_the_page_names_every_route() -> None:
    assert application.HANDLERS
    page = (Path(__file__).parent / "README.md").read_text()
    listed = set(re.findall(r"`(\w+)`", page.partition("Routes: ")[2].partition("\n\n")[0]))
    assert listed == {route.name for route in ROUTES if not route.name.startswith("control_")}
