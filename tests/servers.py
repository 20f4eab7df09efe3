"""Servers on this machine's own loopback that reply as a test says."""
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    "A request."

    method: str
    path: str
    headers: dict
    content: bytes

    @property
    def body(self):
        return json.loads(self.content)


@dataclass
class Reply:
    "What is sent; a body that is no bytes is sent as JSON. `torn`: more bytes are announced than come."

    body: object = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    torn: bool = False

    @property
    def content(self):
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def _any(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, self.headers, content)
        try:
            self._send(self.server.reply(asked))
        except (BrokenPipeError, ConnectionResetError):
            pass

    do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815  the names that the base class looks for

    def _send(self, reply):
        self.send_response(reply.status)
        length = {"Content-Length": str(len(reply.content) + 9 * reply.torn)}
        for name, value in ({"Content-Type": "application/json"} | length | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)


class Server(ThreadingHTTPServer):
    "Replies `reply(asked)` to whatever is asked, until it is closed."

    request_queue_size, daemon_threads = 64, True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.lock = reply, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Endpoint(Server):
    """A server of OpenAI's protocol: `bodies` keeps what it is sent. The next of its script, else `act`, says what it
    replies: a function of the body, or what `as_reply` makes a `Reply` of."""

    def __init__(self, act, script=(), as_reply=Reply):
        self.act, self.script, self.bodies, self.as_reply = act, list(script), [], as_reply
        super().__init__(self._reply)

    def _reply(self, asked):
        with self.lock:
            self.bodies.append(asked.body)
            act = self.script.pop(0) if self.script else self.act
        made = act(asked.body) if callable(act) else act
        return made if isinstance(made, Reply) else self.as_reply(made)

    def point_to(self, monkeypatch, key, path="/v1"):
        "Make it the endpoint of the environment."
        monkeypatch.setenv("OPENAI_BASE_URL", self.url + path)
        monkeypatch.setenv("OPENAI_API_KEY", key)
