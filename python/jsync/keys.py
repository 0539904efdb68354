"""Pre-shared keys: 32 random bytes in a file that only its owner may read."""

import base64
import binascii
import hashlib
import os
import secrets
import shlex
import stat
from pathlib import Path

from jsync.errors import Failure

KEY_BYTES = 32


def decode_key(text: bytes) -> bytes | None:
    """The key that `text` holds in hexadecimal or base64, or None if it holds none."""
    compact = b"".join(text.split())
    for decode in (binascii.unhexlify, lambda data: base64.b64decode(data, validate=True)):
        try:
            key = decode(compact)
        except ValueError:
            continue
        if len(key) == KEY_BYTES:
            return key
    return None


def read_key(path: str) -> bytes:
    """The key in the file `path`. Raises Failure with the remedy."""
    quoted = shlex.quote(path)
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                message = (
                    f"{path}: others may read this key (mode {mode:04o}); type: chmod 0600 {quoted}"
                )
                raise Failure(message)
            text = file.read(4096)
    except FileNotFoundError:
        raise Failure(
            f"{path}: there is no such file; make the key on one node with"
            f" `jsync key generate {quoted}` and copy it to the others"
        ) from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    key = decode_key(text)
    if key is None:
        raise Failure(
            f"{path}: a key is {KEY_BYTES} bytes in base64 or hexadecimal and nothing else;"
            f" `jsync key generate FILE` makes one"
        )
    return key


def generate_key(path: str) -> None:
    """Write a new key to the new file `path`, mode 0600. Raises Failure."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Failure(f"{path}: exists already, and a key is never overwritten") from None
    except OSError as error:
        raise Failure(f"{Path(path).parent}: {error.strerror}") from None
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")


def node_secret(keys: list[bytes], cluster: str) -> bytes:
    """32 bytes for hashing and for the choice of ports.

    All nodes of a cluster derive the same from its first key, so that they choose ports alike;
    without a key they are random.
    """
    if not keys:
        return secrets.token_bytes(32)
    return hashlib.blake2b(
        cluster.encode(), digest_size=32, key=keys[0], person=b"jsync ports"
    ).digest()
