"""A wire to PostgreSQL that can be cut between a commit and its acknowledgement."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from urllib.parse import urlsplit

# PostgreSQL's ReadyForQuery outside a transaction: what was asked is committed.
IDLE = b"Z\x00\x00\x00\x05I"


class CutWire:
    """Passes on what comes to `url` to the server behind it; a context manager.

    After `cut_after(words)`, the answer to the next statement with all these words is not passed on: once the server has
    committed it, the connection is gone. Others stay.
    """

    def __init__(self, url: str) -> None:
        behind = urlsplit(url)
        assert behind.hostname is not None
        assert behind.port is not None
        self._behind = behind.hostname, behind.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        netloc = behind.netloc.rpartition(":")[0]
        self.url = behind._replace(netloc=f"{netloc}:{self._listener.getsockname()[1]}").geturl()
        self._lock = threading.Lock()
        self._words: tuple[bytes, ...] = ()
        self._open: set[socket.socket] = set()
        self.was_cut = threading.Event()

    def __enter__(self) -> CutWire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            ends = [self._listener, *self._open]
        for end in ends:
            _shut(end)
        self._listener.close()

    def cut_after(self, *words: str) -> None:
        with self._lock:
            self._words = tuple(word.encode() for word in words)
        self.was_cut.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with closing(near):
            try:
                far = socket.create_connection(self._behind)
            except OSError:
                return
            with closing(far):
                with self._lock:
                    self._open |= {near, far}
                doomed = threading.Event()
                back = threading.Thread(target=self._pass_back, args=(far, near, doomed), daemon=True)
                back.start()
                with suppress(OSError):
                    while data := near.recv(1 << 20):
                        if self._is_meant(data):
                            doomed.set()
                        far.sendall(data)
                _shut(far)
                back.join()
                with self._lock:
                    self._open -= {near, far}

    def _pass_back(self, far: socket.socket, near: socket.socket, doomed: threading.Event) -> None:
        held = b""
        with suppress(OSError):
            while data := far.recv(1 << 20):
                if not doomed.is_set():
                    near.sendall(data)
                    continue
                held += data
                if held.endswith(IDLE):
                    self.was_cut.set()
                    break
        _shut(near)

    def _is_meant(self, data: bytes) -> bool:
        with self._lock:
            if not self._words or not all(word in data for word in self._words):
                return False
            self._words = ()
            return True


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
