"""What no HTTP server can express: replies written on the socket, a proxy, and certificates."""

from __future__ import annotations

import datetime as dt
import gzip
import ipaddress
import select
import socket
import ssl
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etl.simulator import Fault
from etl.simulator.message import HttpReply
from tests.support.listener import Listener

PIECE = b" " * 1_000_000


@dataclass
class EndlessBody:
    """A body that ends only when the client gives up; ``sent`` counts its bytes."""

    chunked: bool
    sent: int = 0

    def fault(self) -> Fault:
        return Fault("endless body", script=self._write)

    def _write(self, sock: socket.socket, _: HttpReply) -> None:
        framing = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: 9000000000"
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        piece = b"%x\r\n" % len(PIECE) + PIECE + b"\r\n" if self.chunked else PIECE
        while True:
            sock.sendall(piece)
            self.sent += len(PIECE)


def endless_headers() -> Fault:
    """A hundred megabytes of headers."""

    def write(sock: socket.socket, _: HttpReply) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            sock.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))

    return Fault("endless headers", script=write)


def good_gzip(*, prefix: bytes = b"") -> Fault:
    """The proper reply, compressed, which the simulator itself never does."""

    def write(sock: socket.socket, reply: HttpReply) -> bool:
        packed = gzip.compress(prefix + reply.body)
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        sock.sendall(f"{head}Content-Length: {len(packed)}\r\n\r\n".encode() + packed)
        return True

    return Fault("good gzip", script=write)


@dataclass
class Proxy:
    """A proxy that tunnels, or replies to CONNECT with ``answer``."""

    answer: bytes | None = None
    interval_seconds: float = 0.0
    """After each byte of ``answer``."""
    tls: ssl.SSLContext | None = None
    """For a proxy that is itself reached by TLS."""
    seen: list[str] = field(default_factory=list)
    """The heads of the requests that it got."""

    def __post_init__(self) -> None:
        self._listener = Listener(self._welcome)
        self.port = self._listener.port

    def close(self) -> None:
        self._listener.close()

    def _welcome(self, client: socket.socket) -> None:
        if self.tls is not None:
            try:
                client = self.tls.wrap_socket(client, server_side=True)
            except OSError:
                return
        self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            self.seen.append(head.decode("latin-1"))
            if self.answer is not None:
                for byte in self.answer:
                    client.sendall(bytes([byte]))
                    time.sleep(self.interval_seconds)
                return
            host, port = head.split()[1].decode().rsplit(":", 1)
            with socket.create_connection((host, int(port))) as upstream:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while True:
                    # What TLS has already decrypted does not make its socket readable.
                    waiting = isinstance(client, ssl.SSLSocket) and client.pending() > 0
                    ready, _, _ = select.select([client, upstream], [], [], 0 if waiting else 10)
                    if waiting and client not in ready:
                        ready.append(client)
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        (upstream if source is client else client).sendall(data)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file = folder / "authority.pem"
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(
        self, *, host: str = "127.0.0.1", days: int = 1, signed_by: Authority | None = None
    ) -> ssl.SSLContext:
        """A server's context; its certificate ends ``days`` from now."""
        issuer = signed_by or self
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
            .issuer_name(issuer.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        file = self.folder / f"{time.monotonic_ns()}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context
