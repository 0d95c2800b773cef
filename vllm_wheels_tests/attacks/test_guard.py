"""The guard before Dagster's web server, attacked as a page of another site, and another program here, would."""

from __future__ import annotations

import warnings

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from vllm_wheels.defs.guard import Guard

with warnings.catch_warnings():
    # It would rather have another client, which does nothing else here.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

OWN, FOREIGN, SECRET = "http://127.0.0.1:3000", "http://evil.example", "the-secret"
SOCKET = "ws://127.0.0.1:3000/graphql"
MUTATION = "/graphql?query=mutation{launchRun}"
JSON = {"accept": "application/json"}


class Recorder:
    """A server that does whatever it is asked, and remembers it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def http(self, request):
        self.done.append(f"{request.method} {request.url.path}")
        return PlainTextResponse("done")

    async def socket(self, websocket):
        await websocket.accept()
        self.done.append("websocket")
        await websocket.send_text("done")
        await websocket.close()

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
        return Starlette(
            routes=[WebSocketRoute("/graphql", self.socket), Route("/{path:path}", self.http, methods=methods)]
        )


@pytest.fixture
def server():
    return Recorder()


@pytest.fixture
def client(server):
    """A browser without a session."""
    return TestClient(Guard(app=server.app(), origins=(OWN,), secret=SECRET), base_url=OWN, follow_redirects=False)


@pytest.fixture
def browser(client):
    """A browser that opened the printed address."""
    assert client.get(f"/?session={SECRET}").status_code == 303
    return client


def test_printed_address_opens_a_session_and_forgets_the_secret(client, server):
    """The cookie is kept from scripts, and the address bar does not keep the secret."""
    answer = client.get(f"/runs?session={SECRET}&view=all")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?view=all")
    assert {"httponly", "samesite=lax"} <= {word.strip().lower() for word in answer.headers["set-cookie"].split(";")}
    assert server.done == []


@pytest.mark.parametrize("path", ["//evil.example/", "/%2Fevil.example/"])
def test_printed_address_does_not_lead_elsewhere(client, path):
    """Two slashes at the beginning would name another server."""
    answer = client.get(f"{OWN}{path}?session={SECRET}")
    assert answer.headers["location"].startswith("/evil.example")


@pytest.mark.parametrize("given", [{}, {"origin": OWN}, {"origin": FOREIGN}, {"cookie": "vllm_wheels_3000=guess"}])
def test_without_a_session_nothing_is_answered(client, server, given):
    """Other users and programs of this machine know the port, and not the secret."""
    assert client.get("/", headers=given).status_code in {401, 403}
    assert client.post("/graphql", json={"query": "mutation"}, headers=given).status_code in {401, 403}
    assert server.done == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_never_mutates(browser, server, method):
    """The measured attack: Dagster executes a mutation that comes by GET; nothing of it gets there."""
    assert browser.request(method, MUTATION, headers=JSON).status_code == 405
    assert server.done == []


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://127.0.0.1:3001", "https://127.0.0.1:3000", ""])
def test_change_from_another_origin_is_refused(browser, server, origin):
    """Also from another port of this machine, to which the browser would send the cookie along."""
    headers = {"origin": origin, "content-type": "text/plain"}
    assert browser.post("/graphql?query=mutation{launchRun}", headers=headers).status_code == 403
    assert server.done == []


def test_change_without_an_origin_is_refused(browser, server):
    """Browsers say where a change comes from; who does not is no page of ours."""
    assert browser.post("/graphql", json={"query": "mutation"}).status_code == 403
    assert server.done == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "127.0.0.1", "127.0.0.1:3001"])
def test_foreign_name_of_this_server_is_refused(browser, server, host):
    """A name server that leads a page's own name to this machine makes the page's origin ours."""
    headers = {"host": host, "origin": f"http://{host}"}
    assert browser.get("/", headers=headers).status_code == 403
    assert browser.post("/graphql", json={}, headers=headers).status_code == 403
    assert server.done == []


def test_question_of_another_origin_is_refused(browser, server):
    """A browser asks before it sends what no plain form could send; the answer is no."""
    headers = {"origin": FOREIGN, "access-control-request-method": "POST"}
    answer = browser.options("/graphql", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_own_pages_work_as_ever(browser, server):
    """Pages are read, queries and changes come from them, and the page to try queries opens."""
    assert browser.get("/runs").text == "done"
    assert browser.get("/graphql", headers={"accept": "text/html"}).text == "done"
    assert browser.post("/graphql", json={"query": "mutation"}, headers={"origin": OWN}).text == "done"
    assert browser.get("/").headers["x-frame-options"] == "DENY"


def test_program_with_the_secret_needs_no_browser(client, server):
    """A script shows it in a header, which no page of another site can send unasked."""
    headers = {"authorization": f"Bearer {SECRET}"}
    assert client.post("/graphql", json={}, headers=headers).text == "done"
    assert client.post("/graphql", json={}, headers={**headers, "origin": FOREIGN}).status_code == 403


@pytest.mark.parametrize("headers", [{"origin": FOREIGN}, {}, {"origin": OWN, "host": "evil.example"}])
def test_websocket_of_another_origin_is_closed(browser, server, headers):
    """Browsers let any page open one, with cookies, and ask nobody."""
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(SOCKET, headers=headers):
        pass
    assert server.done == []


def test_websocket_of_our_own_page_opens(browser, server):
    """Live pages go on working."""
    with browser.websocket_connect(SOCKET, headers={"origin": OWN}) as socket:
        assert socket.receive_text() == "done"


def test_proxy_that_asks_who_somebody_is_stands_for_the_session(server):
    """Behind a log-in the header of its proxy is enough for reading, and a change still has to be of our origin."""
    guard = Guard(app=server.app(), origins=("https://builds.example",), secret=SECRET, user_header="X-User")
    client = TestClient(guard, base_url="https://builds.example")
    named = {"X-User": "ann"}
    assert client.get("/").status_code == 401
    assert client.get("/", headers=named).text == "done"
    assert client.post("/graphql", json={}, headers={**named, "origin": FOREIGN}).status_code == 403
    assert client.post("/graphql", json={}, headers={**named, "origin": "https://builds.example"}).text == "done"
