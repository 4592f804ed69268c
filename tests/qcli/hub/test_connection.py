"""Connections: proxies, redirects, who gets the token, and what a server may ask for."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from stand_in_hub import Fault

from qcli.errors import QcliError
from qcli.hub.connection import Client, RefusedError, TransientError, pause
from qcli.hub.sites import connection_to, proxied, shown, site_of

TOKEN = {"Authorization": "Bearer hf_secret", "User-Agent": "qcli"}


@pytest.fixture
def client(hub):
    there = Client(hub.address, TOKEN)
    yield there
    there.close()


def answered(hub, client, url, *faults, **options):
    """The answer to a request, before which others are given."""
    waiting = iter(faults)
    hub.fault = lambda asked: next(waiting, Fault(status=200, body=b"here"))
    return client.ask(url, **options)


def leads_to(address, status=302):
    return Fault(status=status, headers={"Location": address})


def test_a_redirect_takes_no_token_to_another_site(hub, client):
    answer = answered(hub, client, f"{hub.address}/a", leads_to(f"{hub.store_address}/b"), leads_to(f"{hub.address}/c"))
    assert answer.read(10) == b"here"
    assert [(one.path, one.token) for one in hub.asked] == [
        ("/a", TOKEN["Authorization"]),
        ("/b", None),
        ("/c", TOKEN["Authorization"]),
    ]


def test_one_that_is_to_stay_stays(hub, client):
    answer = answered(hub, client, f"{hub.address}/a", leads_to("/b"), leads_to(f"{hub.store_address}/c"), stay=True)
    assert (answer.status, answer.redirect) == (302, f"{hub.store_address}/c")
    assert [one.path for one in hub.asked] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("there", "said"),
    [("/a", "without an end"), ("ftp://x/y", "no address"), ("http://[x", "no address"), ("//", "without an end")],
)
def test_redirects_that_lead_nowhere(hub, client, there, said):
    with pytest.raises(QcliError, match=said):
        answered(hub, client, f"{hub.address}/a", *[leads_to(there)] * 9)


def test_a_connection_is_kept_and_opened_again(hub, client):
    for _ in range(2):
        answer = answered(hub, client, f"{hub.address}/a")
        assert answer.read(10) == b"here"
        answer.finish()
    kept = client._socket
    answer = answered(hub, client, f"{hub.address}/a", Fault(status=200, body=b"x", headers={"Connection": "close"}))
    answer.read(10)
    answer.finish()
    assert kept is client._socket
    assert answered(hub, client, f"{hub.address}/a").read(10) == b"here"


def test_a_proxy_is_asked_by_the_full_address(hub, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    monkeypatch.setenv("http_proxy", hub.address.replace("//", "//me:p%40ss@"))
    hub.fault = lambda asked: Fault(status=200, body=b"here")
    client = Client("http://hub.invalid", TOKEN)
    assert client.ask("http://hub.invalid/x?y=1").read(10) == b"here"
    client.close()
    assert hub.asked[0].path == "http://hub.invalid/x?y=1"
    assert proxied(site_of("http://hub.invalid")) == {"Proxy-Authorization": "Basic bWU6cEBzcw=="}
    assert proxied(site_of("http://elsewhere/")) is None


def test_a_site_with_encryption_is_reached_through_a_tunnel(monkeypatch):
    monkeypatch.setenv("https_proxy", "proxy.invalid:3128")
    connection = connection_to(site_of("https://hub.invalid/"), 1)
    assert (connection.host, connection.port, connection._tunnel_host) == ("proxy.invalid", 3128, "hub.invalid")
    monkeypatch.setenv("https_proxy", "socks5://proxy.invalid:1080")
    with pytest.raises(QcliError, match="of a kind that qcli cannot use"):
        connection_to(site_of("https://hub.invalid/"), 1)


@pytest.mark.parametrize(
    ("told", "least", "most"), [("7", 7, 7), ("", 0, 0), ("soon", 0, 0), ("-5", 0, 0), ("date", 20, 40)]
)
def test_how_long_a_server_asks_to_wait(hub, client, told, least, most):
    told = formatdate(time.time() + 30, usegmt=True) if told == "date" else told
    with pytest.raises(TransientError, match="answers 503") as trouble:
        answered(hub, client, f"{hub.address}/a", Fault(status=503, headers={"Retry-After": told}))
    assert least <= trouble.value.wait <= most


def test_pauses_grow_and_end():
    assert [pause(TransientError(""), attempt) for attempt in (0, 1, 2, 9)] == [1, 2, 4, 30]


def test_nobody_is_there(hub, client):
    with pytest.raises(TransientError, match="refused"):
        client.ask("http://127.0.0.1:9/x")
    with pytest.raises(RefusedError):
        answered(hub, client, f"{hub.address}/a", Fault(status=410))


def test_what_is_secret_in_an_address_is_not_shown():
    assert shown("https://me:word@site/a%20b?signature=x") == "https://site/a b"
