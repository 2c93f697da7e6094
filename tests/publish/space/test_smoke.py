"""A written folder, started as a Space starts it: a fresh process, outside this repository, asked over its API."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest
import torch
from gradio_client import Client

import prisma
from prisma import PrismaError
from prisma.publish.space import Plan, plan, smoke, write
from prisma.publish.space.running import Address
from prisma.repository import Published
from tests.publish.space.conftest import SPACE

LIMIT = 120.0


@pytest.fixture(scope="module")
def served(planned: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    folder = tmp_path_factory.mktemp("space") / "copy"
    write(planned, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PRISMA_MODEL")}
    environment |= {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder.parent / "gradio"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    start = [sys.executable, "app.py"]
    with subprocess.Popen(start, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = None
            while found is None and (line := server.stdout.readline()):
                found = re.search(r"http://\S+", line)
            assert found and str(port) in found[0], "app.py ended before it served"
            yield Address("https://hub.test/spaces/lab/explorer", f"http://127.0.0.1:{port}", False)
        finally:
            server.kill()


def test_it_runs_its_own_copy_and_answers_as_the_library(served: Address, planned: Plan, finished_hub: Path) -> None:
    client = Client(served.app, verbose=False, download_files=False, analytics_enabled=False)
    try:
        endpoints = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
        assert {"/about", "/answer"} <= set(endpoints)
        about = client.predict(api_name="/about")
        assert about == {"prisma": prisma.__version__, "models": ["lab/tiny"], "build": planned.build}
        found = client.predict("lab/tiny", 4, 2, api_name="/answer")
    finally:
        client.close()
    loaded = prisma.load("lab/tiny", revision="step-000004", hub=finished_hub)
    assert loaded.transform is not None
    x = loaded.transform.normalise(Published("lab/tiny", finished_hub).probe()[0][2:3])
    torch.testing.assert_close(torch.tensor(found["logits"]), loaded.model(x)[0].detach(), rtol=0, atol=1e-5)
    listed, page = (
        urlopen(f"{served.app.rstrip('/')}/prisma/{name}", timeout=LIMIT).read().decode()
        for name in ("models", "page.js")
    )
    assert "lab/tiny" in listed and "class Attention" in page


def test_the_check_passes_for_this_build_and_weights(served: Address, planned: Plan) -> None:
    smoke.expect_answers(planned, served, LIMIT)


def test_another_build_is_not_accepted(served: Address, planned: Plan) -> None:
    other = replace(planned, hashes={**planned.hashes, "space.json": "0" * 64})
    with pytest.raises(PrismaError, match=f"to serve this build of lab/explorer; found the build {planned.build[:12]}"):
        smoke.expect_answers(other, served, 0.01)


def test_other_numbers_are_not_accepted(served: Address, planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = smoke.logits_of(planned.models[0])
    monkeypatch.setattr(smoke, "logits_of", lambda mouse: wanted * 1.01)
    with pytest.raises(PrismaError, match=r"expected lab/tiny to answer in the Space as in the library, .*; found "):
        smoke.expect_answers(planned, served, LIMIT)


def test_a_space_that_does_not_answer(planned: Plan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = Address("page", f"http://127.0.0.1:{free.getsockname()[1]}", False)
    with pytest.raises(
        PrismaError, match=r"to serve this build of lab/explorer; found that it does not answer"
    ) as found:
        smoke.expect_answers(planned, nobody, 0.01)
    assert found.value.__cause__ is None


def test_a_static_space_serves_its_list(finished_hub: Path, tmp_path: Path) -> None:
    planned = plan(SPACE, [], finished_hub, static=True, images=1, steps=1)
    write(planned, tmp_path / "page")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "page"))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    where = Address("page", f"http://127.0.0.1:{server.server_port}", False)
    try:
        smoke.expect_answers(planned, where, 10)
        (tmp_path / "page" / "space.json").write_text("{}")
        with pytest.raises(PrismaError, match=r"found another build"):
            smoke.expect_answers(planned, where, 0.01)
        (tmp_path / "page" / "space.json").unlink()
        with pytest.raises(PrismaError, match=r"found the status 404 for space.json"):
            smoke.expect_answers(planned, where, 0.01)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
