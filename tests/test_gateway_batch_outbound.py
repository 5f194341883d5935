"""Whom the gateway turns to on a client's word: nobody that only the gateway can reach, however his name is written."""

import asyncio
import gzip
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch.addresses import trouble_of_address, trouble_of_port
from gateway.batch.outbound import Outbound, Unreachable

AUTHORITY = trustme.CA()
SCHEMES = ("http", "https")


@asynccontextmanager
async def outbound(*, allow_private: bool = False) -> AsyncIterator[Outbound]:
    """Make a client that trusts the test's authority."""
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    made = Outbound(lambda: allow_private, trust)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve over HTTPS on this machine; yield the base URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(application, scheme="https")
    await server.start_server(ssl=context)
    try:
        yield f"https://localhost:{server.port}"
    finally:
        await server.close()


async def read(client: Outbound, url: str, most: int = 1000, limit_s: float = 30.0) -> bytes:
    """Read what a URL has."""
    async with aclosing(client.get(url, most, limit_s)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "193.0.0.1", "2606:4700:4700::1111", "2a00:1450::1"],
)
def test_public_addresses_may_be_reached(address):
    """Those that everybody can reach."""
    assert trouble_of_address(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe",
        "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1",
        "64:ff9b:1::1", "2002:7f00:1::", "2002:0a00:0001::", "2001:0:7f00:1::", "2001:db8::1", "fec0::1", "100::1",
        "3fff::1", "localhost", "",
    ],
)  # fmt: skip
def test_other_addresses_may_not(address):
    """Loopback, private, link-local, shared, multicast, reserved, and IPv4 in the clothes of IPv6."""
    assert trouble_of_address(address) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_disguise_is_none(address):
    """Whatever IPv4 address is mapped, translated or tunnelled, it is not reached by its IPv6 name."""
    packed = address.packed
    for disguise in (b"\0" * 12, b"\0" * 10 + b"\xff\xff", bytes.fromhex("0064ff9b") + b"\0" * 8):
        assert trouble_of_address(str(ipaddress.IPv6Address(disguise + packed))) is not None
    assert trouble_of_address(str(ipaddress.IPv6Address(b"\x20\x02" + packed + b"\0" * 10))) is not None


def test_ports_of_other_protocols_may_not_be_reached():
    """A request must not be mistaken for a command."""
    assert [port for port in range(65536) if trouble_of_port(port) is None] == [80, 443, 8080, 8443]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://017700000001/",
        "http://0/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
        "http://[fe80::1%25lo]/", "http://169.254.169.254/latest/meta-data/", "http://localhost/", "http://LOCALHOST/",
        "http://localhost./", "http://localhost:80/", "http://\uff11\uff12\uff17.0.0.1/", "http://127\u30020\u30020\u30021/",
        "http://10.1.2.3/",
        "https://user@8.8.8.8/", "https://user:password@8.8.8.8/", "https://8.8.8.8@127.0.0.1/",
        "http://127.0.0.1\\@8.8.8.8/", "http://8.8.8.8:22/", "http://8.8.8.8:6379/", "http://8.8.8.8:0/",
        "http://8.8.8.8:99999/", "ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "//8.8.8.8/", "8.8.8.8",
        "http://", "http:///x", "", "\x00", "http://\x00/", "http://\ud800/", "https://xn--/", "http://xn--a/",
        "https://8.8.8.8/" + "x" * 3000,
    ],
)  # fmt: skip
async def test_urls_that_lead_inside_are_refused(url):
    """Both where the URL is checked, and where something is sent to it."""
    async with outbound() as client:
        with pytest.raises(Unreachable):
            await client.check(url, SCHEMES)
        with pytest.raises(Unreachable):
            await client.post(url, b"", {}, 30.0)
        with pytest.raises(Unreachable):
            await read(client, url.replace("http://", "https://"))


class Names:
    """A resolver of the system that answers as the test says, one answer after the other."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host: str, port: int, **__: object) -> list[tuple[object, ...]]:
        """Give the next answer; the last one again and again."""
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]


def answering(monkeypatch: pytest.MonkeyPatch, *answers: tuple[str, ...]) -> Names:
    """Let all names have these addresses."""
    names = Names(*answers)
    loop = type(asyncio.get_running_loop())
    monkeypatch.setattr(loop, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("2606:4700::1", "::1")])
async def test_every_address_of_a_name_is_checked(monkeypatch, addresses):
    """One private address among public ones is enough."""
    answering(monkeypatch, addresses)
    async with outbound() as client:
        with pytest.raises(Unreachable, match="no public address"):
            await client.check("https://example.com/", SCHEMES)


async def test_a_name_that_changes_its_address_gains_nothing(monkeypatch):
    """What was public when the URL was checked is looked up and checked again for the connection itself."""
    names = answering(monkeypatch, ("8.8.8.8",), ("127.0.0.1",))
    async with outbound() as client:
        await client.check("https://example.com/", SCHEMES)
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1 is no public address"):
            await client.post("https://example.com/", b"", {}, 30.0)

    assert names.asked == 2


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch):
    """Between the check and the connection no name is looked up."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async with serving(answer) as url, outbound(allow_private=True) as client:
        names = answering(monkeypatch, ("127.0.0.1",), ("203.0.113.9",))

        assert await client.post(url, b"", {}, 30.0) == 204

    assert names.asked == 1


async def test_a_body_is_posted_as_it_is():
    """The other side gets the bytes and the headers, and its status comes back."""
    got = []

    async def answer(request: web.Request) -> web.Response:
        got.append((await request.read(), request.headers["X-Test"]))
        return web.Response(status=503, text="busy")

    async with serving(answer) as url, outbound(allow_private=True) as client:
        assert await client.post(f"{url}/x?y=z", b"body", {"X-Test": "1"}, 30.0) == 503

    assert got == [(b"body", "1")]


async def test_a_body_is_read_in_pieces():
    """A file over HTTPS arrives whole."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 100_000)

    async with serving(answer) as url, outbound(allow_private=True) as client:
        assert await read(client, url, 100_000) == b"x" * 100_000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    """Where they lead was not checked."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with serving(answer) as url, outbound(allow_private=True) as client:
        assert await client.post(f"{url}/here", b"", {}, 30.0) == status
        with pytest.raises(Unreachable, match=f"status {status}"):
            await read(client, f"{url}/here")

    assert asked == ["/here", "/here"]


async def test_bodies_are_bounded():
    """One that says how long it is, one that does not, and one that unpacks to more than it is."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/packed":
            return web.Response(body=gzip.compress(b"x" * 10**6), headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse()
        if request.path == "/long":
            response.content_length = 10_000
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 100)
        return response

    async with serving(answer) as url, outbound(allow_private=True) as client:
        for path in ("long", "chunked"):
            assert len(await read(client, f"{url}/{path}", 10_000)) == 10_000
            with pytest.raises(Unreachable, match="more than 9999 bytes"):
                await read(client, f"{url}/{path}", 9_999)
        with pytest.raises(Unreachable, match="coded body"):
            await read(client, f"{url}/packed", 10**6)


async def test_who_does_not_answer_is_given_up():
    """The time for the whole exchange is bounded."""
    asked = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(answer) as url, outbound(allow_private=True) as client:
        with pytest.raises(Unreachable, match="in time"):
            await client.post(url, b"", {}, 0.3)
        with pytest.raises(Unreachable, match="in time"):
            await read(client, url, limit_s=0.3)


async def test_a_certificate_is_checked():
    """Who cannot show one for the name in the URL is not told anything."""

    async def answer(_: web.Request) -> web.Response:
        raise AssertionError

    async with serving(answer) as url, outbound(allow_private=True) as client:
        stranger = Outbound(lambda: True)
        with pytest.raises(Unreachable, match="ertificate"):
            await stranger.post(url, b"secret", {}, 30.0)
        await stranger.close()
        with pytest.raises(Unreachable, match="ertificate"):
            await client.post(url.replace("localhost", "127.0.0.1"), b"secret", {}, 30.0)


async def test_an_errors_text_has_no_query():
    """It is where secrets are, and the text goes to logs."""
    async with outbound(allow_private=True) as client:
        with pytest.raises(Unreachable) as caught:
            await client.post("http://127.0.0.1:9/path?token=secret#secret", b"", {}, 30.0)

    assert "/path" in str(caught.value)
    assert "secret" not in str(caught.value)
