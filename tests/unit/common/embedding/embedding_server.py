"""A real HTTP server on a free port that serves /v1/embeddings, and misbehaves when told to."""

from __future__ import annotations

import json
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIMENSION = 24


@dataclass
class Fault:
    """One answer instead of vectors.

    `stall` keeps the client waiting until the server closes, `drip` sends a byte now and then.
    """

    status: int = 200
    body: bytes = b'{"error": "said in a test"}'
    headers: dict[str, str] = field(default_factory=dict)
    stall: bool = False
    drip: bool = False


def vector_of(text: str) -> list[float]:
    """A vector that depends on the text alone, of a length other than 1."""
    seed = int.from_bytes(text.encode()[:64].ljust(8, b"."), "little")
    values: list[float] = np.random.default_rng(seed).standard_normal(DIMENSION).tolist()
    return values


class EmbeddingServer:
    """Answers with `faults` one by one, then properly; remembers every request."""

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.gate = threading.Event()  # proper answers wait for it
        self.gate.set()
        self.closing = threading.Event()
        self._lock = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                """Keep the test's output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True  # idle kept-alive connections do not hold up closing

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self.gate.set()
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait_in_flight(self, count: int) -> bool:
        """Wait until so many requests are under way; False after ten seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self.in_flight >= count, 10)

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        request = json.loads(http.rfile.read(int(http.headers["Content-Length"])))
        with self._lock:
            self.requests.append(request)
            self.headers.append({name.lower(): value for name, value in http.headers.items()})
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            fault = self.faults.popleft() if self.faults else None
            self._lock.notify_all()
        try:
            if fault and (fault.stall or fault.drip):
                self._hold(http, drip=fault.drip)
                return
            if fault is None:
                self.gate.wait(30)
                fault = Fault(body=self._vectors(http.path, request))
        finally:
            with self._lock:
                self.in_flight -= 1
        http.send_response(fault.status)
        for name, value in {**fault.headers, "Content-Length": str(len(fault.body))}.items():
            http.send_header(name, value)
        http.end_headers()
        http.wfile.write(fault.body)

    def _hold(self, http: BaseHTTPRequestHandler, *, drip: bool) -> None:
        """Keep a client waiting until it leaves, the server closes, or thirty seconds are over."""
        http.close_connection = True
        if not drip:
            self.closing.wait(30)
            return
        http.send_response(200)
        http.send_header("Content-Length", "600")
        http.end_headers()
        with suppress(ConnectionError):
            for _ in range(600):
                http.wfile.write(b" ")
                if self.closing.wait(0.05):
                    return

    def _vectors(self, path: str, request: dict[str, Any]) -> bytes:
        assert path == "/v1/embeddings"
        assert request["encoding_format"] == "float"
        rows = [
            {"object": "embedding", "index": index, "embedding": vector_of(text)}
            for index, text in enumerate(request["input"])
        ]
        # the protocol orders by `index`, not by place
        return json.dumps(
            {"object": "list", "data": rows[::-1], "model": request["model"]}
        ).encode()
