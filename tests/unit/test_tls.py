"""Mutual TLS between nodes on the loopback interface, with real certificates."""

import datetime
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trustme
from meshes import Mesh, eventually, frame_of, mesh, with_length

from jsync import config
from jsync.errors import Failure
from jsync.tls import Credentials, names_address
from jsync.transport import tcp

NAT64 = '[node]\nid = 1\n[nat64]\npool4 = [{ prefix = "192.0.2.1" }]\n'
SYNC = '[sync]\ncluster = "c"\ntransport = "tcp"\nlisten = "127.0.0.1"\npeers = ["127.0.0.2"]\n'
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


class Authority:
    """Signs certificates and puts them into files."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.path = directory / f"{name}.pem"
        self.authority.cert_pem.write_to_path(self.path)

    def issue(
        self, node: int, *, names: str | None = None, expires: datetime.datetime | None = None
    ) -> Credentials:
        issued = self.authority.issue_cert(names or f"127.0.0.{node}", not_after=expires)
        key = self.directory / f"{node}.key"
        certificate = self.directory / f"{node}.pem"
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return Credentials(str(certificate), str(key), str(self.path))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test)


def test_nodes_with_certificates_exchange_frames(authority: Authority) -> None:
    async def test() -> None:
        async with mesh(3, authority.issue) as nodes:
            await nodes.transports[1].send(0, frame_of(1, bytes(60_000)))
            for node in (2, 3):
                await nodes.sinks[node].wait_for(frame_of(1, bytes(60_000)))
            await nodes.transports[2].send(1, frame_of(2, b"only to 1"))
            await nodes.sinks[1].wait_for(frame_of(2, b"only to 1"))

    run(test)


def test_what_travels_is_encrypted(authority: Authority) -> None:
    """Who listens on the peer's address in clear sees a handshake and no frame."""

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 2, authority.issue)
            listeners = await trio.open_tcp_listeners(nodes.port, host="127.0.0.2")
            nodes.start(1)
            async with listeners[0], await listeners[0].accept() as stream:
                await nodes.transports[1].send(0, frame_of(1, b"secret"))
                data = await stream.receive_some()
            assert data[0] == 22  # RFC 8446 section 5.1: a handshake record
            assert b"secret" not in data
            nursery.cancel_scope.cancel()

    run(test)


def of_another_authority(authority: Authority) -> Credentials:
    found = Authority(authority.directory, "other").issue(2)
    return Credentials(found.certificate, found.key, str(authority.path))


OTHERS: dict[str, tuple[Callable[[Authority], Credentials], tuple[str, ...]]] = {
    "unknown CA": (of_another_authority, ("self-signed", "local issuer", "unknown ca")),
    "expired": (lambda a: a.issue(2, expires=YESTERDAY), ("expired",)),
    "another address": (
        lambda a: a.issue(2, names="127.0.0.9"),
        ("doesn't name 127.0.0.2", "IP address mismatch", "bad certificate"),
    ),
}


@pytest.mark.parametrize("dials", ["both", "only it"])
@pytest.mark.parametrize("what", OTHERS)
def test_a_certificate_that_is_not_good_is_refused_counted_and_logged_once(
    authority: Authority, what: str, dials: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_dialling(_peer: object) -> None: ...

    make, words = OTHERS[what]

    async def test() -> None:
        async with trio.open_nursery() as nursery:
            good = authority.issue(1)
            bad = make(authority)
            nodes = Mesh(nursery, 2, lambda node: good if node == 1 else bad)
            if dials == "only it":
                monkeypatch.setattr(nodes.transports[1], "_dial", no_dialling)
            nodes.start(1)
            nodes.start(2)
            stats = nodes.transports[1].stats
            await eventually(lambda: stats.connections_refused >= 3)
            assert nodes.sinks[1].frames == nodes.sinks[2].frames == []
            text = nodes.logs[1].getvalue()
            assert any(word in text for word in words), text
            assert text.count("cut off") == 1
            nursery.cancel_scope.cancel()

    run(test)


def test_who_has_no_certificate_is_refused(authority: Authority) -> None:
    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nodes = Mesh(nursery, 2, authority.issue)
            nodes.start(1)
            await eventually(lambda: "waiting" in nodes.logs[1].getvalue())
            for words in (with_length(frame_of(2)), b"GET / HTTP/1.1\r\n\r\n"):
                stream = await trio.open_tcp_stream(
                    "127.0.0.1", nodes.port, local_address="127.0.0.2"
                )
                with trio.fail_after(5):
                    await stream.send_all(words)
                    while await stream.receive_some():
                        pass  # an alert at most
                await stream.aclose()
                await trio.sleep(tcp.PENALTY_SECONDS)
            assert nodes.sinks[1].frames == []
            assert nodes.transports[1].stats.connections_refused >= 2
            nursery.cancel_scope.cancel()

    run(test)


def test_a_renewed_certificate_is_read_without_a_restart(authority: Authority) -> None:
    async def test() -> None:
        async with trio.open_nursery() as nursery:
            files = {1: authority.issue(1), 2: authority.issue(2, expires=YESTERDAY)}
            nodes = Mesh(nursery, 2, files.__getitem__)
            nodes.start(1)
            nodes.start(2)
            await eventually(lambda: nodes.transports[1].stats.connections_refused > 0)
            authority.issue(2)
            with trio.fail_after(20):
                await nodes.introduce()
            nursery.cancel_scope.cancel()

    run(test)


def test_an_address_is_looked_for_among_addresses_only() -> None:
    names = (("DNS", "10.0.0.1"), ("IP Address", "FE80:0:0:0:0:0:0:1"), ("IP Address", "10.0.0.2"))
    certificate = {"subjectAltName": names}
    assert names_address(certificate, "fe80::1")
    assert names_address(certificate, "10.0.0.2")
    assert not names_address(certificate, "10.0.0.1")
    assert not names_address(None, "10.0.0.1")


def lines(credentials: Credentials) -> str:
    return (
        f'tls-certificate = "{credentials.certificate}"\n'
        f'tls-key = "{credentials.key}"\ntls-ca = "{credentials.authority}"\n'
    )


def test_the_key_of_the_cluster_may_be_absent_with_tls(authority: Authority) -> None:
    settings = config.parse(NAT64 + SYNC + lines(authority.issue(1)), "f")
    assert settings.credentials() is not None
    assert b'"plaintext": true' in (settings.sync_json(1, 1400) or b"")
    with_key = config.parse(NAT64 + SYNC + 'key-files = ["k"]\n' + lines(authority.issue(1)), "f")
    assert b'"plaintext": false' in (with_key.sync_json(1, 1400) or b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: os.chmod(c.key, 0o640), "tls-key: .*others may read this key .*chmod 0600"),
        (lambda c: os.remove(c.key), "tls-key: .*No such file"),
        (lambda c: Path(c.authority).write_text("x"), "tls-ca: .*no certificates in PEM"),
        (
            lambda c: Path(c.certificate).write_text("x"),
            "tls-certificate: .*no certificate and its",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(
    authority: Authority, change: Callable[[Credentials], object], message: str
) -> None:
    credentials = authority.issue(1)
    change(credentials)
    with pytest.raises(Failure, match=f"f:\\d+: sync.{message}"):
        config.parse(NAT64 + SYNC + lines(credentials), "f").credentials()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SYNC + 'tls-key = "k"\n', "tls-key: needs tls-certificate and tls-ca"),
        (
            SYNC + 'plaintext = true\ntls-key = "k"\ntls-ca = "a"\ntls-certificate = "c"\n',
            "plaintext: contradicts TLS",
        ),
        (
            '[sync]\ncluster = "c"\ninterface = "x"\ntls-key = "k"\ntls-ca = "a"\n'
            'tls-certificate = "c"\n',
            "has no meaning with transport",
        ),
    ],
)
def test_settings_that_contradict_each_other(text: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        config.parse(NAT64 + text, "f")
