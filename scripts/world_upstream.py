"""A model that always answers rightly, for streams whose truth must be known, and may change: OpenAI's chat over HTTP.

It knows the questions that it is told of beforehand, and from some moment on gives other answers to some of them.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Truth:
    """The right answers by question: those of the former world until `change` is called, then those of the new one."""

    def __init__(self, former: Mapping[str, str], new: Mapping[str, str]) -> None:
        self._former = former
        self._new = new
        self.changed = False

    def change(self) -> None:
        """Let the new answers be the right ones."""
        self.changed = True

    def answer(self, question: str) -> str:
        """Return what is right now."""
        return (self._new if self.changed else self._former)[question]


@contextmanager
def serving(truth: Truth) -> Iterator[str]:
    """Serve it on a free port of loopback; yield the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = truth.answer(asked["messages"][-1]["content"])
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}
            told = {"id": "w", "object": "chat.completion", "created": 0, "model": "world", "choices": [choice]}
            body = json.dumps({**told, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="world", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
