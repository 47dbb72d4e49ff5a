"""A page served to this computer alone, which answers texts."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

LONGEST = 20_000  # bytes of a request
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """A server of one page on 127.0.0.1, to be run by ``serve_forever``.

    ``GET /`` gives the page. ``POST /read`` takes ``{"text": ...}`` and gives the result of `answer` for the text, or
    ``{"error": sentence}`` where it raises; unless it is a ValueError, its traceback is printed. Texts are answered one
    at a time. Other pages that are open in the browser cannot send requests: a request must name this server as its
    ``Host``, and as its ``Origin`` if it has one, and be of type ``application/json``, which a browser does not send to
    other origins without asking them.

    Parameters
    ----------
    port : int
        0 takes one that is free.

    Attributes
    ----------
    page : str
        HTML.
    answer : callable
        From a text to JSON.
    hosts : list of str
        The names to which it answers.

    Raises
    ------
    ValueError
        If the port is no port number, is taken or may not be used.
    """

    page: str
    answer: Callable[[str], str]

    def __init__(self, port: int) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}") from error
        names = ["127.0.0.1", "localhost"]
        self.hosts = [f"{name}:{self.server_port}" for name in names]
        self.hosts += names if self.server_port == 80 else []  # browsers leave the usual port out
        self.answering = Lock()

    def handle_error(self, *arguments: Any) -> None:
        """Print nothing for a client that has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*arguments)


class _RefusalError(Exception):
    """A request that is answered by a sentence in place of a result."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "proxsae", ""
    timeout = 30  # seconds for a client to send its request

    def do_GET(self) -> None:
        self._reply("text/html; charset=utf-8", self._page)

    def do_POST(self) -> None:
        self._reply("application/json", self._answer)

    def _page(self) -> str:
        self._check_path("/")
        return self.server.page

    def _answer(self) -> str:
        self._check_path("/read")
        text = self._text()
        with self.server.answering:
            try:
                return self.server.answer(text)
            except ValueError as error:
                raise _RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
            except Exception as error:
                traceback.print_exc()
                sentence = f"the text could not be read: {type(error).__name__}: {error}"
                raise _RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, sentence) from error

    def _reply(self, kind: str, respond: Callable[[], str]) -> None:
        try:
            self._check_origin()
            body, status = respond(), HTTPStatus.OK
        except _RefusalError as refused:
            kind, body, status = "application/json", json.dumps({"error": str(refused)}), refused.status
        content = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _check_origin(self) -> None:
        hosts, given = self.server.hosts, [host.lower() for host in self.headers.get_all("Host", [])]
        if len(given) != 1 or given[0] not in hosts:
            raise _RefusalError(HTTPStatus.FORBIDDEN, f"this server answers to the host {' or '.join(hosts)} alone")
        if any(origin.lower() != f"http://{given[0]}" for origin in self.headers.get_all("Origin", [])):
            raise _RefusalError(HTTPStatus.FORBIDDEN, "only the page that this server gave may ask it")

    def _check_path(self, path: str) -> None:
        if self.path != path:
            raise _RefusalError(HTTPStatus.NOT_FOUND, "the page is at '/', and texts are posted to '/read'")

    def _text(self) -> str:
        if self.headers.get_content_type() != "application/json":
            raise _RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the request must be of type application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise _RefusalError(HTTPStatus.LENGTH_REQUIRED, "the request does not say its length")
        if len(length) > 9 or int(length) > LONGEST:
            sentence = f"the text is too long: at most {LONGEST:,} bytes are read, and the request has {length}"
            raise _RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        try:
            text = json.loads(self.rfile.read(int(length)))["text"]
            text.encode()
        except UnicodeEncodeError:
            sentence = "the text holds half of a surrogate pair, which is no character"
            raise _RefusalError(HTTPStatus.BAD_REQUEST, sentence) from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise _RefusalError(HTTPStatus.BAD_REQUEST, 'the request must be {"text": "..."}, in JSON') from None
        return str(text)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
