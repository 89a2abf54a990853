"""Tokens changed and signed by hand (RFC 7515), with the openssl command and nothing of this project."""

import base64
import json
import pathlib
import subprocess
import tempfile

from peer import b64url


def tampered(token, *, header=None, claims=None, signature=None):
    """With members of header and claims changed; None takes one away."""
    parts = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]
    changed = ({name: value for name, value in (part | (change or {})).items() if value is not None}
               for part, change in zip(parts, (header, claims)))
    signed = ".".join(b64url(json.dumps(part).encode()) for part in changed)
    return f"{signed}.{token.split('.')[2] if signature is None else signature(signed)}"


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def es256(signed, key):
    """The signature of JWS (RFC 7518 clause 3.4) by the key in this file."""
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=signed.encode(), capture_output=True, check=True).stdout
    length = der[3]
    r, s = der[4:4 + length], der[6 + length:]
    return b64url(b"".join(part.lstrip(b"\0").rjust(32, b"\0") for part in (r, s)))


def own_key(token):
    """The token signed with ES256 by a key of one's own, which its header names."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        new_key(folder / "key")
        public = subprocess.run(["openssl", "pkey", "-in", folder / "key", "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
        jwk = {"kty": "EC", "crv": "P-256", "x": b64url(public[-64:-32]), "y": b64url(public[-32:])}
        return tampered(token, header={"jwk": jwk, "kid": None}, signature=lambda signed: es256(signed, folder / "key"))


def new_key(path):
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path], check=True)
