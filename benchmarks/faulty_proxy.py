"""A web proxy that answers as bad networks and bad stores do.

It forwards every request to one server, except where a rule says otherwise, and counts them.

    python -m benchmarks.faulty_proxy LISTEN PORT UPSTREAM_PORT FOLDER

takes its rules from FOLDER/rules.json, which may change at any time; how many answers they have
spoilt since then is kept in FOLDER/spoilt.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Rule:
    """What happens to the next ``times`` answers to requests for paths with ``part``."""

    part: str
    kind: str
    """A status such as "500", or cut, slow, stall, wrong."""
    times: int = 1_000_000
    methods: tuple[str, ...] = ("GET",)


class Proxy(ThreadingHTTPServer):
    """On an address of its own, in front of the server at ``upstream``."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], upstream: tuple[str, int]):
        super().__init__(address, Handler)
        self.upstream = upstream
        self.rules: list[Rule] = []
        self.seen: list[tuple[str, str]] = []
        """(method, path) of every request."""
        self.released = threading.Event()
        """Lets what is stalled go on, at the end at the latest."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def fault(self, method: str, path: str) -> str:
        with self.lock:
            self.seen.append((method, path))
            for rule in self.rules:
                if rule.part in path and method in rule.methods and rule.times:
                    rule.times -= 1
                    return rule.kind
        return ""

    def gets(self, part: str) -> int:
        return sum(method == "GET" and part in path for method, path in self.seen)


class Handler(BaseHTTPRequestHandler):
    """Hands a request on, or spoils the answer."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def handle_one(self) -> None:
        kind = self.server.fault(self.command, self.path)
        body = self.body()
        if kind.isdigit():
            self.answer(int(kind), {}, b"", 0)
            return
        upstream = http.client.HTTPConnection(*self.server.upstream)
        skip = "expect", "transfer-encoding", "content-length", "connection"
        headers = {k: v for k, v in self.headers.items() if k.lower() not in skip}
        upstream.request(self.command, self.path, body or None, headers)
        got = upstream.getresponse()
        data = got.read()
        upstream.close()
        size = int(got.headers.get("Content-Length") or len(data))
        if kind == "wrong" and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.answer(got.status, dict(got.headers), data, size, kind)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def answer(
        self, status: int, headers: Mapping[str, str], data: bytes, size: int, kind: str = ""
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(data) // 2
        try:
            self.wfile.write(data[:half])
            if kind in ("cut", "stall"):
                if kind == "stall":
                    self.server.released.wait(60)
                self.close_connection = True
                return
            if kind == "slow":
                time.sleep(0.3)
            self.wfile.write(data[half:])
        except OSError:
            self.close_connection = True  # the other side has gone

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty_proxy(
    host: str, port: int, listen: str = "127.0.0.1", own_port: int = 0
) -> Iterator[Proxy]:
    """In front of the server at host:port, on an address of its own."""
    proxy = Proxy((listen, own_port), (host, port))
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def main(listen: str, port: str, upstream: str, folder: str) -> None:
    text, total = "", 0
    with faulty_proxy(listen, int(upstream), listen, int(port)) as proxy:
        while True:
            time.sleep(0.05)
            if (now := Path(folder, "rules.json").read_text()) != text:
                text = now
                proxy.rules = [Rule(**rule) for rule in json.loads(text)]
                total = sum(rule.times for rule in proxy.rules)
            left = sum(rule.times for rule in proxy.rules)
            Path(folder, "spoilt").write_text(str(total - left))


if __name__ == "__main__":
    main(*sys.argv[1:])
