"""Mutual TLS between the nodes: certificates in place of, or beside, pre-shared keys.

A certificate proves two things: that the cluster's authority has signed it, and that its holder
speaks for the address it was met at, which is one of its subjectAltNames. It doesn't name the
node's number: the first authentic frame of a connection does, and the connection keeps it.
"""

import ipaddress
import os
import shlex
import ssl
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsync.errors import Failure


@dataclass
class Credentials:
    """A node's certificate and key, and the authority that it trusts, all of them PEM files.

    The files are read again when they have changed, so a renewed certificate needs no restart.
    """

    certificate: str
    key: str
    authority: str
    _read: tuple[float, ...] = ()
    _server: ssl.SSLContext = field(init=False, repr=False)
    _client: ssl.SSLContext = field(init=False, repr=False)

    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """How to answer and how to dial. Raises Failure with the remedy."""
        times = tuple(self._time(path) for path in (self.certificate, self.key, self.authority))
        if times != self._read:
            check_mode(self.key)
            self._server = self._context(ssl.PROTOCOL_TLS_SERVER)
            self._client = self._context(ssl.PROTOCOL_TLS_CLIENT)
            self._read = times
        return self._server, self._client

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # nobody resumes: every connection shows its certificate
        try:
            context.load_verify_locations(cafile=self.authority)
        except (ssl.SSLError, OSError) as error:
            raise Failure(
                f"{self.authority}: holds no certificates in PEM ({_why(error)})"
            ) from None
        try:
            # A key with a passphrase would ask for it on a terminal that a daemon doesn't have.
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise Failure(
                f"{self.certificate}, {self.key}: are no certificate and its key in PEM"
                f" ({_why(error)})"
            ) from None
        return context

    def _time(self, path: str) -> float:
        try:
            return os.stat(path).st_mtime_ns
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None


def check_mode(path: str) -> None:
    """Raise Failure if others than its owner may read the key file `path`."""
    try:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise Failure(
            f"{path}: others may read this key (mode {mode:04o});"
            f" type: chmod 0600 {shlex.quote(path)}"
        )


def names_address(certificate: Mapping[str, Any] | None, address: str) -> bool:
    """Whether a certificate, as `getpeercert` gives it, has the address among its names."""
    wanted = ipaddress.ip_address(address)
    names: Sequence[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    return any(kind == "IP Address" and _address(value) == wanted for kind, value in names)


def reason(error: BaseException) -> str:
    """What a failed handshake failed of, in OpenSSL's words."""
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {(cause.reason or str(cause)).replace('_', ' ').lower()}"
    return str(cause)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase; store it without one, mode 0600")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else str(error)) or str(error)
