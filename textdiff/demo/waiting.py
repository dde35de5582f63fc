"""A page that shows the progress of a training run until its model can be tried out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET6
from threading import Thread
from typing import Any

from textdiff.demo.frames import asset

Progress = dict[str, Any]


@contextmanager
def waiting_page(host: str, port: int, run: Path, steps: int) -> Iterator[str]:
    """Serves the page while the body of the `with` statement trains. Yields its address.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 is a free one.
        run: Folder of the run.
        steps: Number of steps of the run.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/progress":
                self._answer("application/json", json.dumps(progress(run, steps)))
            elif self.path == "/":
                self._answer("text/html; charset=utf-8", asset("waiting.html"))
            else:
                self.send_error(404)

        def _answer(self, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Prints nothing."""

    class Server(ThreadingHTTPServer):
        address_family = AF_INET6 if ":" in host else ThreadingHTTPServer.address_family
        daemon_threads = True

    with Server((host, port), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()


def progress(run: Path, steps: int) -> Progress:
    """Progress of a run, as it is logged: steps, seconds left, and the latest samples."""
    found: Progress = {"step": 0, "steps": steps, "seconds_left": 0.0, "samples": []}
    log = run / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    for text in lines:
        if not text.endswith("}"):  # it is being written
            continue
        line = json.loads(text)
        found["step"] = max(found["step"], line["step"])
        found["samples"] = line.get("samples") or found["samples"]
        if line["step"] and "seconds" in line:
            left = steps - line["step"]
            found["seconds_left"] = line["seconds"] / line["step"] * left
    return found
