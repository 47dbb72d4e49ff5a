"""The local server: what it answers, and what it refuses in one sentence."""

import json
import socket
from http.client import HTTPConnection
from threading import Thread

import pytest

from proxsae.report.server import LONGEST, PageServer


@pytest.fixture(scope="module")
def server():
    def answer(text):
        if text == "bad":
            raise ValueError("no such <text>")
        return json.dumps({"length": len(3 if text == "number" else text)})

    with PageServer(0) as server:
        server.page, server.answer = "<!doctype html>caf\u00e9", answer
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, body=b'{"text": "a b"}', method="POST", path="/read", **headers):
    """Return status and body; headers of None are not sent."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    usual = {"Host": server.hosts[0], "Content-Type": "application/json", "Content-Length": str(len(body))}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in (usual | {name.replace("_", "-"): value for name, value in headers.items()}).items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                connection.putheader(name, one)
    connection.endheaders(body)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content.decode(), reply.headers


def refusal(*arguments, **headers):
    status, content, _ = ask(*arguments, **headers)
    return status, json.loads(content)["error"]


def test_it_gives_the_page_and_reads_texts(server):
    status, content, headers = ask(server, b"", "GET", "/")
    assert (status, content) == (200, server.page)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert ask(server)[:2] == (200, '{"length": 3}')
    assert ask(server, Host=server.hosts[1], Origin=f"http://{server.hosts[1]}")[0] == 200
    assert ask(server, Content_Type="application/json; charset=utf-8")[0] == 200
    assert ask(server, Host=server.hosts[1].upper(), Origin=f"http://{server.hosts[1]}")[0] == 200
    assert refusal(server, b'{"text": "bad"}') == (422, "no such <text>")


def test_any_error_is_answered_and_logged(server, capfd):
    sentence = "the text could not be read: TypeError: object of type 'int' has no len()"
    assert refusal(server, b'{"text": "number"}') == (500, sentence)
    assert capfd.readouterr().err.count("Traceback") == 1
    assert ask(server)[0] == 200


def test_the_usual_port_is_left_out_of_the_host(monkeypatch):
    def bind(server):
        server.server_name, server.server_port = "127.0.0.1", 80

    monkeypatch.setattr(PageServer, "server_bind", bind)
    monkeypatch.setattr(PageServer, "server_activate", lambda _: None)
    with PageServer(80) as server:
        assert server.hosts == ["127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost"]


def test_it_is_not_for_others(server):
    assert server.server_address[0] == "127.0.0.1"
    port = server.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"localhost:{port}.evil.example", None):
        for method, path in (("GET", "/"), ("POST", "/read")):
            status, sentence = refusal(server, b"", method, path, Host=host)
            assert (status, sentence[:26]) == (403, "this server answers to the")
    assert refusal(server, Host=[server.hosts[0], server.hosts[1]])[0] == 403
    for origin in ("http://evil.example", "null", f"http://{server.hosts[1]}"):
        assert refusal(server, Origin=origin) == (403, "only the page that this server gave may ask it")
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        assert refusal(server, Content_Type=kind) == (415, "the request must be of type application/json")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"text": 3}', b"\xff", b"[" * 15_000],
    ids=lambda b: repr(b[:9]),
)
def test_what_is_no_request_is_refused(server, body):
    assert refusal(server, body) == (400, 'the request must be {"text": "..."}, in JSON')
    half = "the text holds half of a surrogate pair, which is no character"
    assert refusal(server, b'{"text": "\\ud800"}') == (400, half)


def test_a_text_has_an_end(server):
    assert refusal(server, b"", Content_Length=str(LONGEST + 1))[0] == 413
    assert "at most 20,000 bytes" in refusal(server, b"", Content_Length="9" * 5000)[1]
    for length in (None, "-1", "x", "1.5", "\u00b2"):
        assert refusal(server, b"", Content_Length=length) == (411, "the request does not say its length")


def test_it_has_one_page(server):
    for method, path in (("GET", "/read"), ("GET", "/../../etc/passwd"), ("POST", "/")):
        assert refusal(server, b"", method, path)[0] == 404
    assert ask(server, b"", "PUT", "/")[0] == 501


def test_a_port_that_cannot_be_used_is_one_sentence(server):
    with pytest.raises(ValueError, match=rf"port {server.server_port} cannot be used: Address already in use"):
        PageServer(server.server_port)
    with pytest.raises(ValueError, match="port 70000 cannot be used"):
        PageServer(70_000)


def test_a_client_that_leaves_disturbs_nobody(server, capfd):
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(b"POST /read HTTP/1.0\r\nContent-Length: 50\r\n")
    assert ask(server)[0] == 200
    assert capfd.readouterr().err == ""
