"""Pairs of keys for signing, made anew."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec


def pair(folder: Path, name: str = "key", password: bytes | None = None) -> tuple[Path, Path]:
    """(the file of a private key, that of its public key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    hidden = pem.BestAvailableEncryption(password) if password else pem.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, hidden))
    public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
    return private, public
