"""Signatures: whose they are, of what, and that nobody sees the key."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prisma.errors import PrismaError
from prisma.publish import audit, diff, forecast, publish, yank
from prisma.publish.signing import SIGNATURE, Signer, signature_problem
from prisma.repository import MANIFEST
from tests.publish.keys import pair
from tests.publish.places import InFolder, Place, edit, found

NAME, DATA = "checkpoints.json", b'{"run": "one"}\n'


def test_the_owner_of_a_key_signs_these_bytes(tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    signer = Signer.of(private)
    signature = signer.signature(NAME, DATA)
    assert signature_problem(NAME, DATA, signature, public) is None
    assert "found none" in (signature_problem(NAME, DATA, None, public) or "")
    assert "by another key" in (signature_problem(NAME, DATA, signature, pair(tmp_path, "other")[1]) or "")
    assert f"{NAME} was changed" in (signature_problem(NAME, DATA + b" ", signature, public) or "")


def test_a_signature_is_one_for_the_librarys_own_command(tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    (tmp_path / NAME).write_bytes(DATA)
    (tmp_path / SIGNATURE).write_bytes(Signer.of(private).signature(NAME, DATA))
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(tmp_path / NAME)]
    options = ["--signature", str(tmp_path / SIGNATURE), "--public_key", str(public)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    private, public = pair(tmp_path_factory.mktemp("keys"))
    return Signer.of(private).signature(NAME, DATA), public


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_other_bytes_pass(signed: tuple[bytes, Path], data: st.DataObject) -> None:
    """A manifest with one bit turned, and a statement of another manifest under the old signature."""
    signature, public = signed
    i = data.draw(st.integers(0, 8 * len(DATA) - 1))
    changed = bytearray(DATA)
    changed[i // 8] ^= 1 << i % 8
    assert signature_problem(NAME, bytes(changed), signature, public)
    bundle = json.loads(signature)
    payload = bytearray(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    j = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[j // 8] ^= 1 << j % 8
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    assert "forged or damaged" in (signature_problem(NAME, DATA, json.dumps(bundle).encode(), public) or "")


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff\xfe", b"[1]", b'{"verificationMaterial": {"publicKey": 1}}'])
def test_what_is_no_signature_is_a_problem(tmp_path: Path, junk: bytes) -> None:
    assert "found something else" in (signature_problem(NAME, DATA, junk, pair(tmp_path)[1]) or "")


def test_a_bundle_without_its_parts_is_a_problem(signed: tuple[bytes, Path]) -> None:
    bundle = json.loads(signed[0])
    del bundle["dsseEnvelope"]
    problem = signature_problem(NAME, DATA, json.dumps(bundle).encode(), signed[1])
    assert problem == f"expected a signature of {NAME} in {SIGNATURE}; found one of something else, or of no known form"


def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    secret = private.read_text().splitlines()[1]
    (tmp_path / "torn.pem").write_text(private.read_text().replace(secret, secret[:20]))
    for path, reason in (
        (pair(tmp_path, "locked", b"word")[0], "found one with a password"),
        (public, "found something else"),
        (tmp_path / "torn.pem", "found something else"),
        (tmp_path / "absent", "no such file|absent"),
    ):
        with pytest.raises(PrismaError, match=reason) as caught:
            Signer.of(path)
        assert secret[:20] not in repr(caught.value) + str(caught.value.__cause__)
    with pytest.raises(PrismaError, match=r"expected a public key .*found something else") as caught:
        signature_problem(NAME, DATA, b"{}", private)
    assert secret[:20] not in repr(caught.value)
    assert secret not in repr(Signer.of(private))


def test_without_the_library_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.errors.find_spec", lambda name: None)
    with pytest.raises(PrismaError, match=r"expected the package model_signing; .*pip install 'prisma-vit\[signing\]'"):
        Signer.of(pair(tmp_path)[0])


def test_a_published_run_is_signed_once(address: Path | None, run: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    assert [finding.problem for finding in audit("lab/tiny", address, key=public)] == [
        f"expected a signature {SIGNATURE}; found none"
    ]
    assert forecast(run, "lab/tiny", address, sign=private, progress=False).files == 1
    first = publish(run, "lab/tiny", address, sign=private, progress=False)
    assert (first.changed, first.moved) == (True, ("main",))
    assert not audit("lab/tiny", address) and not audit("lab/tiny", address, key=public)
    assert not diff(run, "lab/tiny", address)
    again = publish(run, "lab/tiny", address, sign=private, progress=False)
    assert (again.changed, again.bytes, again.commit) == (False, 0, first.commit)
    assert not publish(run, "lab/tiny", address, progress=False).changed  # without the key: it stays
    other = pair(tmp_path, "other")
    assert "by another key" in audit("lab/tiny", address, key=other[1])[0].problem
    assert publish(run, "lab/tiny", address, sign=other[0], progress=False).moved == ("main",)
    assert not audit("lab/tiny", address, key=other[1])
    secret = private.read_text().splitlines()[1]
    kept = [path for folder in (run, address or run) for path in folder.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in kept)


def test_what_changes_the_manifest_ends_its_signature(run: Path, hub: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    publish(run, "lab/tiny", hub, sign=private, progress=False)
    yank("lab/tiny", "step-000002", "wrong", hub)
    assert [finding.problem for finding in audit("lab/tiny", hub, key=public)] == [
        f"expected a signature of this {MANIFEST} in {SIGNATURE}; found one of other bytes: {MANIFEST} was changed"
    ]
    assert not audit("lab/tiny", hub)  # an outdated signature is no problem for who has no key
    yank("lab/tiny", "step-000002", "wrong data", hub, sign=private)
    assert not audit("lab/tiny", hub, key=public)


def test_a_careful_forgery_is_found_by_the_key_alone(run: Path, hub: Path, tmp_path: Path) -> None:
    private, public = pair(tmp_path)
    publish(run, "lab/tiny", hub, sign=private, progress=False)
    place: Place = InFolder(hub)
    edit(place, MANIFEST, lambda values: values.update(run=values["run"]))  # other bytes of the same content
    assert not audit("lab/tiny", hub)
    assert found(audit("lab/tiny", hub, key=public), "main", f"{MANIFEST} was changed")


def test_without_a_key_a_signature_need_only_be_one(run: Path, hub: Path, tmp_path: Path) -> None:
    publish(run, "lab/tiny", hub, sign=pair(tmp_path)[0], progress=False)
    place = InFolder(hub)
    for junk in (b"", b"\x80pickle", b"{}", b"[1]"):
        place.serve("main", {SIGNATURE: junk})
        (finding,) = audit("lab/tiny", hub)
        assert finding.problem == f"expected a signature in {SIGNATURE}; found something else"
