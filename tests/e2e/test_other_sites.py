"""Pages of other sites, shown by a browser on this machine: they have nothing of a gateway without keys."""

from scripts.running_gateway import RunningGateway
from tests.e2e.program import call, chat, chat_body


def test_a_page_of_another_site_has_nothing_of_the_gateway(gateway: RunningGateway) -> None:
    """Neither by its own name that leads here nor from elsewhere: not hits, which are known by bytes, nor the pages."""
    asked = "What is the capital of Lithuania?"
    for _ in range(3):
        assert chat(gateway.url, "atlas", asked).status == 200

    for headers in ({"Host": "evil.example", "Origin": "http://evil.example"}, {"Origin": "http://evil.example"}):
        refused = call(gateway.url, "POST", "/v1/chat/completions", chat_body("atlas", asked), **headers)
        assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden")
        assert call(gateway.url, "POST", "/admin/cache/purge", {"all": True}, **headers).status == 403
    assert call(gateway.url, "GET", "/admin/config", Host="evil.example").status == 403
    assert call(gateway.url, "GET", "/metrics", Host="evil.example").status == 403
    assert "hit" in chat(gateway.url, "atlas", asked).headers["cache-status"]
