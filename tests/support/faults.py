"""A TCP proxy on loopback that misbehaves per connection, by plan; after the plan it is a plain proxy."""

import socket
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = 16 * 1024


@dataclass(frozen=True)
class Refuse:
    """Accept and reset at once."""


@dataclass(frozen=True)
class Cut:
    """Reset after ``n`` bytes of the response."""

    n: int


@dataclass(frozen=True)
class Stall:
    """Say nothing more after ``n`` bytes of the response."""

    n: int


@dataclass(frozen=True)
class Answer:
    """Answer one HTTP status without asking the server."""

    status: int
    retry_after: str = ""

    def text(self) -> bytes:
        extra = f"Retry-After: {self.retry_after}\r\n" if self.retry_after else ""
        body = "<Error><Code>SlowDown</Code></Error>"
        head = f"HTTP/1.1 {self.status} X\r\n{extra}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return (head + body).encode()


Fault = Refuse | Cut | Stall | Answer | None


@dataclass
class FaultProxy:
    """``plan`` is one fault per connection, ``always`` is what happens after it."""

    target: tuple[str, int]
    plan: list[Fault]
    always: Fault = None
    connections: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _open: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._spawn(self._accept)

    def stop(self) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for connection in self._open:
            connection.close()

    def _spawn(self, work, *arguments) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self.connections += 1
                self._spawn(self._serve, client, self.plan.pop(0) if self.plan else self.always)

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        with suppress(OSError):
            if isinstance(fault, Refuse):
                _reset(client)
            elif isinstance(fault, Answer):
                client.recv(65536)
                client.sendall(fault.text())
                client.close()
            else:
                self._relay(client, fault)

    def _relay(self, client: socket.socket, fault: Fault) -> None:
        server = socket.create_connection(self.target)
        self._open.append(server)
        pump = self._spawn(_pump, client, server)
        limit = fault.n if isinstance(fault, Cut | Stall) else None
        sent = 0
        while piece := server.recv(_PIECE):
            if limit is not None and sent + len(piece) >= limit:
                client.sendall(piece[: limit - sent])
                self._break(client, pump, fault)
                break
            client.sendall(piece)
            sent += len(piece)
        server.close()
        client.close()

    def _break(self, client: socket.socket, pump: threading.Thread, fault: Fault) -> None:
        if isinstance(fault, Stall):
            self._closing.wait()
            return
        while _on_its_way(client) and not self._closing.wait(0.001):
            pass  # a reset throws away what was sent and not read
        client.shutdown(socket.SHUT_RD)
        pump.join()  # a socket that another thread reads stays open: nothing would be reset
        _reset(client)


def _pump(client: socket.socket, server: socket.socket) -> None:
    with suppress(OSError):
        while piece := client.recv(65536):
            server.sendall(piece)
        server.shutdown(socket.SHUT_WR)


def _on_its_way(client: socket.socket) -> int:
    """Bytes of a loopback connection (Linux, IPv4) that are not sent yet, or not read by the other end."""
    here, there = (
        f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
        for host, port in (client.getsockname(), client.getpeername())
    )
    queues = {
        (local, remote): [int(size, 16) for size in sizes.split(":")]
        for _, local, remote, _, sizes, *_ in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    }
    return queues.get((here, there), [0, 0])[0] + queues.get((there, here), [0, 0])[1]


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextmanager
def fault_proxy(target: tuple[str, int], plan: Sequence[Fault] = (), always: Fault = None) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target, list(plan), always)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
