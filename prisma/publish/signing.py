"""Signatures of manifests, with a plain pair of keys and without a network, by the library `model-signing`.

A manifest states the hashes of all files of all revisions, so one signature covers them all. It is a file of its own
beside the manifest, a Sigstore bundle, which other tools verify too. Without a signature, whoever may write to a
repository can rewrite everything in it that must agree; with one, only who has the private key can.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prisma.errors import PrismaError, expect_packages
from prisma.filesystem import given
from prisma.reading import parse_json, read_bytes
from prisma.repository import MANIFEST

ENDING = ".sig"
"""What the name of a signature adds to that of its file."""
SIGNATURE = f"{MANIFEST}{ENDING}"
KEY_BYTES = 100_000  # the largest file that is read as a key
CURVES = "P-256, P-384 or P-521"


@dataclass(frozen=True)
class Signer:
    """Makes signatures with a private key. Neither its text nor an error shows anything of the key."""

    key: Path  # a file in PEM, without a password
    _config: Any = field(repr=False)
    _made: dict[tuple[str, str], bytes] = field(default_factory=dict, repr=False)  # (name, SHA-256) -> signature

    @classmethod
    def of(cls, key: str | Path) -> "Signer":
        """Raises PrismaError unless `key` is the file of a private key that can sign, and the library is there."""
        key = given(key)
        _expect_library()
        read_bytes(key, KEY_BYTES)  # which says why a file cannot be read
        from model_signing.signing import Config

        try:
            return cls(key, Config().use_elliptic_key_signer(private_key=key))
        except TypeError:
            reason = "one with a password"
        except Exception:  # of any kind, and its words are not repeated: they are about a secret
            reason = "something else"
        raise PrismaError(
            f"expected a private key of an elliptic curve ({CURVES}) in PEM, without a password, in {key}; found "
            f"{reason}"
        )

    def signature(self, name: str, data: bytes, there: bytes | None = None) -> bytes:
        """A signature of a file. `there`, a signature that exists, is kept if it is of these bytes and by this key."""
        found = (name, hashlib.sha256(data).hexdigest())
        if found not in self._made:
            self._made[found] = there if there and self._is_mine(name, data, there) else self._sign(name, data)
        return self._made[found]

    def _sign(self, name: str, data: bytes) -> bytes:
        with _as_files({name: data}) as folder:
            self._config.sign(folder / name, folder / f"{name}{ENDING}")
            return (folder / f"{name}{ENDING}").read_bytes()

    def _is_mine(self, name: str, data: bytes, there: bytes) -> bool:
        from cryptography.hazmat.primitives import serialization as pem

        public = pem.load_pem_private_key(self.key.read_bytes(), None).public_key()
        text = public.public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
        with _as_files({"key": text}) as folder:
            return signature_problem(name, data, there, folder / "key") is None


def signature_problem(name: str, data: bytes, signature: bytes | None, key: Path) -> str | None:
    """What is wrong with the signature of a file; None if the owner of a public key signed these bytes.

    Args:
        name: of the file that was signed.
        signature: the content of the signature's file; None if there is none.
        key: the file of the public key, in PEM.

    Raises:
        PrismaError: `key` is no such file, or the library is not there.
    """
    verifier, own = _verifier(key)
    file = f"{name}{ENDING}"
    if signature is None:
        return f"expected a signature {file}; found none"
    if (stated := stated_key(signature)) is None:
        return f"expected a signature in {file}; found something else"
    if stated != own:
        return f"expected a signature by the key {given(key)} in {file}; found one by another key"
    from cryptography.exceptions import InvalidSignature

    with _as_files({name: data, file: signature}) as folder, redirect_stdout(io.StringIO()):
        try:
            verifier.verify(folder / name, folder / file)
        except InvalidSignature:
            return f"expected a valid signature in {file}; found one that was forged or damaged"
        except Exception as error:  # of any kind: the bundle is a stranger's
            if "Hash mismatch" in str(error):
                return f"expected a signature of this {name} in {file}; found one of other bytes: {name} was changed"
            return f"expected a signature of {name} in {file}; found one of something else, or of no known form"
    return None


def stated_key(signature: bytes) -> str | None:
    """The hash of the public key that a signature names; None if it is no signature."""
    try:
        stated = parse_json(signature.decode(), "a signature")["verificationMaterial"]["publicKey"]["hint"]
    except (PrismaError, UnicodeDecodeError, KeyError, TypeError):
        return None
    return stated if isinstance(stated, str) else None


def _verifier(key: Path) -> tuple[Any, str]:
    """What verifies by a public key, and the hash by which signatures name that key."""
    key = given(key)
    _expect_library()
    content = read_bytes(key, KEY_BYTES)
    from cryptography.hazmat.primitives import serialization as pem
    from model_signing.verifying import Config

    try:
        text = pem.load_pem_public_key(content).public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
        return Config().use_elliptic_key_verifier(public_key=key), hashlib.sha256(text).hexdigest()
    except Exception:  # of any kind, and its words are not repeated: it may be a private key
        raise PrismaError(
            f"expected a public key of an elliptic curve ({CURVES}) in PEM in {key}; found something else: "
            "`openssl pkey -in KEY -pubout` prints that of a private key"
        ) from None


def _expect_library() -> None:
    """Raise PrismaError unless what signs is installed."""
    expect_packages("model_signing", "OpenSSL", extra="signing")


@contextmanager
def _as_files(content: Mapping[str, bytes]) -> Iterator[Path]:
    """A temporary folder of these files: the library signs and verifies what is on disk."""
    with TemporaryDirectory(prefix="prisma-signing-") as folder:
        for name, data in content.items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder)
