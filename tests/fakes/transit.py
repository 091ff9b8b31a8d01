"""A transit engine on loopback that behaves as the documented API of OpenBao and Vault says.

Rule:
    https://openbao.org/api-docs/secret/transit/: paths, methods, bodies and status codes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PATH = re.compile(r"/v1/transit/(?P<verb>keys|encrypt|decrypt)(/(?P<name>[\w.-]+))?(/(?P<config>config))?")


@dataclass
class Engine:
    """What the engine holds.  `answers` are given first, whatever is asked: (status, how often)."""

    credential: str
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    upserts: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, credential: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.asked[f"{method} {path}"] += 1
            self.bodies.append(body)
            if self.answers:
                return self.answers.pop(0), {"errors": ["as told"]}
            if credential != self.credential:
                return 403, {"errors": ["permission denied"]}
            if (method, path) == ("GET", "/v1/transit/keys?list=true"):
                return (200, {"data": {"keys": sorted(self.keys)}}) if self.keys else (404, {"errors": []})
            found = PATH.fullmatch(path)
            if found is None:
                return 404, {"errors": ["no handler for route"]}
            act = getattr(self, f"_{method.lower()}_{found['config'] or found['verb']}", None)
            return act(found["name"], body) if act else (405, {"errors": ["unsupported operation"]})

    def _make(self, name: str, body: dict[str, Any]) -> None:
        options = {"type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False, **body}
        self.keys.setdefault(name, {**options, "deletion_allowed": False, "secret": os.urandom(32)})

    def _post_keys(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        self._make(name, body)
        return self._get_keys(name, body)

    def _get_keys(self, name: str, _body: dict[str, Any]) -> tuple[int, Any]:
        if name not in self.keys:
            return 404, {"errors": []}
        shown = {key: value for key, value in self.keys[name].items() if key != "secret"}
        return 200, {"data": {"name": name, "keys": {"1": 1442851412}, "latest_version": 1, **shown}}

    def _post_config(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        if name not in self.keys:
            return 400, {"errors": [f"no existing key named {name} could be found"]}
        self.keys[name].update(body)
        return 204, None

    def _delete_keys(self, name: str, _body: dict[str, Any]) -> tuple[int, Any]:
        if name not in self.keys:
            return 400, {"errors": ["could not delete key; not found"]}
        if not self.keys[name]["deletion_allowed"]:
            return 400, {"errors": ["deletion is not allowed for this key"]}
        del self.keys[name]
        return 204, None

    def _post_encrypt(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        if name not in self.keys:
            if not self.upserts:
                return 403, {"errors": ["permission denied"]}
            self._make(name, {})
        nonce = os.urandom(12)
        plaintext, aad = base64.b64decode(body["plaintext"]), base64.b64decode(body["associated_data"])
        sealed = nonce + AESGCM(self.keys[name]["secret"]).encrypt(nonce, plaintext, aad)
        return 200, {
            "data": {"ciphertext": "vault:v1:" + base64.b64encode(sealed).decode(), "key_version": 1}
        }

    def _post_decrypt(self, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        if name not in self.keys:
            return 400, {"errors": ["encryption key not found"]}
        try:
            sealed = base64.b64decode(body["ciphertext"].removeprefix("vault:v1:"), validate=True)
            aad = base64.b64decode(body["associated_data"])
            plaintext = AESGCM(self.keys[name]["secret"]).decrypt(sealed[:12], sealed[12:], aad)
        except ValueError:
            return 400, {"errors": ["invalid ciphertext: could not decode base64"]}
        except InvalidTag:
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plaintext).decode()}}


@contextlib.contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """Serve the engine on loopback and return its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            credential = self.headers.get("X-Vault-Token", "")
            status, tree = engine.answer(self.command, self.path, credential, body)
            content = b"" if tree is None else json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _reply  # noqa: N815 - http.server names them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
