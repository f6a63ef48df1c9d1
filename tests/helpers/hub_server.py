"""A stand-in of the Hugging Face Hub on the loopback: as much as fetching and uploading use."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Repositories in memory.

    Attributes:
        repos: name -> path -> bytes.
        requests: "METHOD path" of every request.
        token: what a writer has to send.
        private: names of repositories that were made private.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.token = "hf_standin0123456789"
        self.private: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                self._serve(True)

            def do_HEAD(self) -> None:
                self._serve(False)

            def do_POST(self) -> None:
                body = self._body()
                hub.requests.append(f"POST {self.path}")
                if self.headers.get("Authorization") != f"Bearer {hub.token}":
                    return self._json({"error": "Invalid credentials"}, 401)
                path = urlsplit(self.path).path
                if path == "/api/validate-yaml":
                    return self._json({"errors": [], "warnings": []})
                if path == "/api/repos/create":
                    asked = json.loads(body)
                    name = f"{asked['organization']}/{asked['name']}"
                    hub.repos.setdefault(name, {})
                    if asked.get("private") or asked.get("visibility") == "private":
                        hub.private.add(name)
                    return self._json({"url": f"{hub.address}/{name}", "name": name})
                name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
                if "/preupload/" in path:
                    files = [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for one in json.loads(body)["files"]
                    ]
                    return self._json({"files": files})
                if "/commit/" in path:
                    for line in body.decode().splitlines():
                        entry = json.loads(line)
                        if entry["key"] == "file":
                            value = entry["value"]
                            hub.repos[name][value["path"]] = base64.b64decode(value["content"])
                    return self._json(
                        {"commitUrl": f"{hub.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
                    )
                return self._json({"error": "not served here"}, 404)

            def _serve(self, whole: bool) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                path = unquote(urlsplit(self.path).path)
                if path.startswith("/api/models/"):
                    name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
                    if name not in hub.repos:
                        return self._json({"error": "Repository not found"}, 404, "RepoNotFound")
                    if "/tree/" in path:
                        return self._json(
                            [
                                {"type": "file", "path": one, "size": len(data), "oid": COMMIT}
                                for one, data in sorted(hub.repos[name].items())
                            ]
                        )
                    names = [{"rfilename": one} for one in sorted(hub.repos[name])]
                    return self._json({"id": name, "modelId": name, "sha": COMMIT, "siblings": names})
                name, _, file = path.strip("/").partition("/resolve/")
                data = hub.repos.get(name, {}).get(file.partition("/")[2])
                if data is None:
                    return self._json({"error": "Entry not found"}, 404, "EntryNotFound")
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if whole:
                    self.wfile.write(data)
                return None

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _json(self, content: object, status: int = 200, code: str = "") -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[HubServer]:
        """Serve inside the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
