"""The web on loopback: a folder of files, and a Hugging Face hub of folders USER/NAME, each with the one revision "main"."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 39 + "1"


@contextmanager
def serve(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that lives as long as the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class QuietServer(SimpleHTTPRequestHandler):
    """Python's own server of files, which logs nothing."""

    def log_message(self, *_: Any) -> None:
        pass


def serve_files(folder: Path) -> AbstractContextManager[str]:
    """The address of a server of the files of a folder."""
    return serve(partial(QuietServer, directory=str(folder)))


def load_from_hub(root: Path, program: str, settings: object) -> list[str]:
    """The lines that a program prints when it is given settings and the hub of a folder.

    The client reads the hub's address when it is imported, hence a process of its own.
    """
    with serve(hub(root)) as address:
        return subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(settings),
            env={**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(root / "home")},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()


def hub(root: Path) -> type[BaseHTTPRequestHandler]:
    """A handler for the few requests that the clients make to load a dataset or a tokenizer."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            api, parts = parts[0] == "api", parts[1:] if parts[0] == "api" else parts
            user, name, *rest = [*parts[parts[0] in ("datasets", "models") :], "", ""]
            folder = root / user / name
            if not name or not folder.is_dir():
                self.answer(404, b"{}", "RepoNotFound")
            elif api and rest[:1] == ["tree"]:
                self.answer(200, json.dumps(entries(folder, folder.joinpath(*rest[2:]).rglob("*"))).encode())
            elif api:
                files = [{"rfilename": found["path"]} for found in entries(folder, folder.rglob("*")) if found["type"] == "file"]
                self.answer(200, json.dumps({"id": f"{user}/{name}", "sha": COMMIT, "siblings": files}).encode())
            elif rest[:1] == ["resolve"] and (file := folder.joinpath(*rest[2:])).is_file():
                self.answer(200, file.read_bytes())
            else:
                self.answer(404, b"{}", "EntryNotFound")

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:
            user, name = self.path.split("/")[3:5]
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["paths"]
            self.answer(200, json.dumps(entries(root / user / name, (root / user / name / path for path in asked))).encode())

        def answer(self, status: int, body: bytes, error: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if error:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Hub


def entries(folder: Path, paths: Iterator[Path]) -> list[dict[str, Any]]:
    """What the hub says of each file and folder."""
    return [entry(path, str(path.relative_to(folder))) for path in sorted(paths) if path.exists()]


def entry(path: Path, name: str) -> dict[str, Any]:
    """What the hub says of a file, or of a folder."""
    if path.is_dir():
        return {"type": "directory", "oid": COMMIT, "size": 0, "path": name}
    return {"type": "file", "oid": hashlib.sha1(path.read_bytes()).hexdigest(), "size": path.stat().st_size, "path": name}
