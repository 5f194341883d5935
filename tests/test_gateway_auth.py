"""Who calls: keys by their digests, loopback where there are none."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.callers.auth import Gatekeeper, Key, is_loopback
from gateway.errors import Forbidden, Unauthorized
from gateway.main import main
from gateway.request import UNLIMITED, Limits

SECRET = "sk-warmgate-5ecre7"
LIMITS = Limits(requests_per_minute=5)


def gatekeeper() -> Gatekeeper:
    """Make one that knows one key."""
    return Gatekeeper([Key("team-a", hashlib.sha256(SECRET.encode()).hexdigest().upper(), ("m",), LIMITS)])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": f"bearer  {SECRET} "},
        {"x-api-key": SECRET},
        {"authorization": "Basic eDp5", "x-api-key": SECRET},
    ],
)
def test_key_is_known_by_its_digest(headers: dict[str, str]) -> None:
    """However a client sends its key, it is the caller of the key's name, with its models and limits."""
    caller = gatekeeper().identify(headers, "192.0.2.1")

    assert (caller.scope, caller.models, caller.limits) == ("key:team-a", ("m",), LIMITS)


@given(text=st.text(st.characters(codec="utf-8") | st.just("\udcff"), max_size=50))
def test_no_other_text_is_a_key(text: str) -> None:
    """Anything else is refused without being repeated, bytes that are no UTF-8 included."""
    with pytest.raises(Unauthorized) as caught:
        gatekeeper().identify({"x-api-key": text, "authorization": f"Bearer {text}"}, "127.0.0.1")

    assert str(caught.value) == "the API key is not known here"


def test_key_without_limits_is_known_as_such() -> None:
    """Limits that limit nothing are the one value that costs nothing."""
    keeper = Gatekeeper([Key("a", hashlib.sha256(b"x").hexdigest(), limits=Limits())])

    assert keeper.identify({"x-api-key": "x"}, None).limits is UNLIMITED


@pytest.mark.parametrize(
    ("peer", "own"),
    [
        (None, True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_without_keys_only_this_machine_may_call(peer: str | None, own: bool) -> None:
    """Loopback in all its spellings is served, every other address is told why not."""
    assert is_loopback(peer) is own
    if own:
        assert Gatekeeper([]).identify({}, peer).scope == ""
    else:
        with pytest.raises(Forbidden, match="only loopback may call"):
            Gatekeeper([]).identify({}, peer)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        (None, True),
        ("127.0.0.1:8080", True),
        ("192.0.2.7", True),
        ("[::1]:8080", True),
        ("[fe80::1%eth0]:80", True),
        ("LocalHost:8080", True),
        ("localhost.", True),
        ("box:8080", True),
        ("gateway.example.org", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("[evil.example]:8080", False),
        ("1.2.3", False),
    ],
)
def test_who_is_on_this_machine_must_call_it_by_a_name_of_its_own(host: str | None, known: bool) -> None:
    """A page whose name became this address is refused; so are other machines, whatever they say."""
    keeper, headers = Gatekeeper([], hosts=("Box", "gateway.example.org")), {} if host is None else {"host": host}
    keeper.check_host(headers, "192.0.2.1")
    if known:
        assert keeper.identify(headers, "127.0.0.1").scope == ""
        keeper.check_host(headers, None)
    else:
        for check in (keeper.identify, keeper.check_host):
            with pytest.raises(Forbidden, match="no name of this gateway"):
                check(headers, "127.0.0.1")


def test_with_keys_any_host_is_served() -> None:
    """Gateways stand behind proxies with names; a key is proof enough."""
    assert gatekeeper().identify({"x-api-key": SECRET, "host": "evil.example"}, "127.0.0.1").scope == "key:team-a"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "no API key: send"),
        ({"authorization": SECRET}, "does not begin with 'Bearer': send"),
        ({"authorization": f"Basic {SECRET}"}, "does not begin with 'Bearer': send"),
        ({"api-key": SECRET}, "no API key is taken from 'api-key': send"),
    ],
)
def test_a_client_is_told_how_to_send_its_key(headers: dict[str, str], said: str) -> None:
    """Both headers are named, and what it sent instead is not repeated."""
    with pytest.raises(Unauthorized) as caught:
        gatekeeper().identify(headers, "127.0.0.1")

    assert f"{said} it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_new_key_opens_what_its_digest_is_configured_for(capsys: pytest.CaptureFixture[str]) -> None:
    """`warmgate key` prints the key, and the line for the file; no two are alike."""
    keys = set()
    for _ in range(2):
        with pytest.raises(SystemExit, match="0"):
            main(["key"])
        key, line = capsys.readouterr().out.splitlines()
        sha256 = line.removeprefix('sha256: "').removesuffix('"')
        assert Gatekeeper([Key("a", sha256)]).identify({"x-api-key": key}, None).scope == "key:a"
        keys.add(key)
    assert len(keys) == 2


def test_with_keys_loopback_needs_one_too() -> None:
    """Once there are keys, being on the same machine opens nothing."""
    with pytest.raises(Unauthorized, match="no API key"):
        gatekeeper().identify({}, "127.0.0.1")
