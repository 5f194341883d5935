"""The batch API as its clients see it: orders, progress, results, cancelling; with real callbacks."""

import asyncio
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from backends.contract import BadJob
from gateway.callers.auth import Key
from tests.batch_api import POLICY, api, until
from tests.fakes import FakeEngine


async def test_a_batch_from_order_to_results(tmp_path):
    """The order is accepted with an id, the work is done, and the results come in the order of the inputs."""
    async with api(tmp_path) as served:
        accepted = await served.order(inputs=["x", {"prompt": "y", "max_tokens": 3}, {"input": "z"}])
        assert accepted["status"] in ("queued", "running")
        assert accepted["estimated_time"] is None
        ended = await served.ended(accepted["batch_id"])

        assert (ended["status"], ended["total"], ended["done"], ended["failed"]) == ("done", 3, 3, 0)
        assert ended["estimated_time"] == 0
        assert [row["index"] for row in ended["results"]] == [0, 1, 2]
        assert {row["status"] for row in ended["results"]} == {"done"}
        assert ended["results"][0]["output"] == {
            "text": "yes",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            "model_version": "a-1",
        }
        assert ended["next_offset"] is None

        again = await served.order(inputs=["x"] * 3)
        assert again["estimated_time"] >= 0


async def test_the_models_task_says_what_is_done(tmp_path):
    """A batch for an embedder embeds, whichever way its inputs are written."""
    async with api(tmp_path) as served:
        accepted = await served.order(model="e", inputs=["x", {"inputs": ["y"]}])
        ended = await served.ended(accepted["batch_id"])

        assert ended["task"] == "embed"
        assert [row["output"]["embeddings"] for row in ended["results"]] == [[[1.0, 2.0]]] * 2


async def test_an_item_that_fails_does_not_fail_the_others(tmp_path):
    """Its error is its result; a batch where nothing succeeded has failed."""
    async with api(tmp_path, a=FakeEngine((BadJob("too long", "prompt"),))) as served:
        ended = await served.ended((await served.order(inputs=["x", "y"]))["batch_id"])

        assert (ended["status"], ended["done"], ended["failed"]) == ("failed", 0, 2)
        assert ended["results"][0]["error"] == {
            "message": "too long",
            "type": "invalid_request_error",
            "code": None,
            "param": "prompt",
        }


async def test_results_come_in_pages(tmp_path):
    """Every page says where the next one begins."""
    async with api(tmp_path) as served:
        batch_id = (await served.order(inputs=[f"text {number}" for number in range(25)]))["batch_id"]
        await served.ended(batch_id)
        seen, offset = [], 0
        while offset is not None:
            page = await served.look(batch_id, f"?offset={offset}&limit=10")
            seen += [row["index"] for row in page["results"]]
            offset = page["next_offset"]

        assert seen == list(range(25))
        assert (await served.look(batch_id, "?limit=0"))["results"] == []
        assert (await served.look(batch_id, "?offset=99"))["results"] == []


@pytest.mark.parametrize(
    "query",
    [
        "?limit=-1",
        "?limit=1001",
        "?limit=x",
        "?limit=",
        "?offset=1e3",
        "?offset=99999999999",
        "?page=1",
        "?limit=\u0661",
    ],
)
async def test_a_page_that_cannot_be_is_refused(tmp_path, query):
    """The parameter is named."""
    async with api(tmp_path) as served:
        reply = await served.call("GET", f"/api/v1/batch/none{query}")

    assert reply.status == 400
    assert json.loads(reply.body)["error"]["param"] in ("limit", "offset", "page")


async def test_cancelling_stops_a_batch(tmp_path):
    """What was not done is cancelled; to cancel once more changes nothing."""
    never = asyncio.Event()
    async with api(tmp_path, a=FakeEngine((never,))) as served:
        batch_id = (await served.order(inputs=["x"] * 10))["batch_id"]
        path = f"/api/v1/batch/{batch_id}"
        await until(lambda: served.batches.readings()[1].value > 0)
        cancelled = json.loads((await served.call("DELETE", path)).body)

        assert (cancelled["status"], cancelled["done"]) == ("cancelled", 0)
        assert json.loads((await served.call("DELETE", path)).body) == cancelled
        assert {row["status"] for row in (await served.look(batch_id))["results"]} == {"cancelled"}
        assert served.batches.readings()[0].value == 0


async def test_a_repeat_with_the_same_key_is_the_same_batch(tmp_path):
    """A client that did not hear the answer asks again and gets it; another body under the key is a conflict."""
    async with api(tmp_path) as served:
        key = {"idempotency_key": "k1"}
        first = await served.order(inputs=["x"], headers=key)
        again = await served.order(inputs=["x"], headers=key)
        other = await served.order(inputs=["y"], headers=key, status=409)
        new = await served.order(inputs=["x"])

    assert first["batch_id"] == again["batch_id"] != new["batch_id"]
    assert other["error"]["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("key", ["", "x" * 256, "\xff", "a\tb"])
async def test_a_key_has_a_bounded_form(tmp_path, key):
    """It is some printable characters."""
    async with api(tmp_path) as served:
        refused = await served.order(headers={"idempotency_key": key}, status=400)

    assert "Idempotency-Key" in refused["error"]["message"]


async def test_a_batch_is_its_callers_alone(tmp_path):
    """Another key neither sees nor cancels it, and its idempotency keys are its own."""
    keys = tuple(
        Key(name, hashlib.sha256(name.encode()).hexdigest(), models)
        for name, models in (("one", ("a",)), ("two", ("*",)))
    )
    one, two = ({"authorization": f"Bearer {name}"} for name in ("one", "two"))
    async with api(tmp_path, keys=keys) as served:
        batch_id = (await served.order(headers={**one, "idempotency_key": "k"}))["batch_id"]
        path = f"/api/v1/batch/{batch_id}"

        assert (await served.call("GET", path)).status == 401
        assert (await served.call("GET", path, **two)).status == 404
        assert (await served.call("DELETE", path, **two)).status == 404
        assert (await served.call("GET", path, **one)).status == 200
        assert (await served.order(headers={**two, "idempotency_key": "k"}))["batch_id"] != batch_id
        await served.order(model="e", headers=one, status=403)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        ({"inputs": ["x"]}, 400, "model"),
        ({"model": "none", "inputs": ["x"]}, 404, "model"),
        ({"model": "i", "inputs": ["x"]}, 400, "model"),
        ({"model": "a"}, 400, "inputs"),
        ({"model": "a", "inputs": []}, 400, "inputs"),
        ({"model": "a", "inputs": "x"}, 400, "inputs"),
        ({"model": "a", "inputs": ["x", ""]}, 400, "inputs[1]"),
        ({"model": "a", "inputs": ["x", 1]}, 400, "inputs[1]"),
        ({"model": "a", "inputs": ["x", ["y"]]}, 400, "inputs[1]"),
        ({"model": "a", "inputs": [{"prompt": "x", "model": "b"}]}, 400, "inputs[0]"),
        ({"model": "a", "inputs": [{"prompt": "x", "stream": True}]}, 400, "inputs[0]"),
        ({"model": "a", "inputs": [{"prompt": "x", "max_tokens": 0}]}, 400, "inputs[0]"),
        ({"model": "a", "inputs": [{"text": "x"}]}, 400, "inputs[0]"),
        ({"model": "a", "inputs": ["x"], "task": "sing"}, 400, "task"),
        ({"model": "a", "inputs": ["x"], "task": 1}, 400, "task"),
        ({"model": "a", "inputs": ["x"], "task": "embed"}, 400, "task"),
        ({"model": "e", "inputs": ["x"], "task": "generate", "parameters": {"seed": 1}}, 400, "task"),
        ({"model": "i", "inputs": ["x"], "task": "predict"}, 400, "model"),
        ({"model": "a", "inputs": ["x"], "parameters": {"temperature": 3}}, 400, "inputs[0]"),
        ({"model": "a", "inputs": ["x"], "parameters": {"prompt": "y"}}, 400, "prompt"),
        ({"model": "a", "inputs": ["x"], "parameters": []}, 400, "parameters"),
        ({"model": "e", "inputs": ["x"], "parameters": {"seed": 1}}, 400, "parameters"),
        ({"model": "a", "inputs": ["x"], "callback": "https://example.com"}, 400, "callback"),
        ({"model": "a", "inputs": ["x"], "callback_url": 1}, 400, "callback_url"),
        ({"model": "a", "inputs": ["x"], "callback_url": "ftp://127.0.0.1/"}, 400, "callback_url"),
        ({"model": "a", "inputs": ["x"], "callback_url": "http://u:p@127.0.0.1/"}, 400, "callback_url"),
        ({"model": "a", "inputs": "file:///etc/passwd"}, 400, "inputs"),
        ({"model": "a", "inputs": "s3://bucket/key"}, 400, "inputs"),
    ],
)
async def test_what_is_refused_is_named(tmp_path, body, status, param):
    """Nothing is accepted in part, and the error has the shape of the native API."""
    async with api(tmp_path) as served:
        refused = await served.order(body, status=status)

        assert refused["error"].keys() == {"message", "type", "code", "param"}
        assert refused["error"]["param"] == param
        assert served.batches.readings()[0].value == 0


@pytest.mark.parametrize(
    ("policy", "url"),
    [
        (replace(POLICY, callback_secret=None), "https://127.0.0.1/"),
        (replace(POLICY, allow_private=False), "http://127.0.0.1/"),
        (replace(POLICY, allow_private=False), "http://localhost/"),
        (replace(POLICY, allow_private=False), "http://[::ffff:169.254.169.254]/"),
    ],
)
async def test_a_callback_that_may_not_be_is_refused_at_once(tmp_path, policy, url):
    """Not when the batch has ended and nobody is there to hear of it."""
    async with api(tmp_path, policy) as served:
        refused = await served.order(callback_url=url, status=400)

    assert refused["error"]["param"] == "callback_url"


async def test_the_queue_is_bounded(tmp_path):
    """What never fits is 413; what does not fit now is 429 with a time to come back."""
    never = asyncio.Event()
    async with api(tmp_path, replace(POLICY, max_items=5), a=FakeEngine((never,))) as served:
        await served.order(inputs=["x"] * 6, status=413)
        first = await served.order(inputs=["x"] * 4)
        reply = await served.call("POST", "/api/v1/batch", {"model": "a", "inputs": ["x"] * 2})
        assert (reply.status, json.loads(reply.body)["error"]["code"]) == (429, "batch_queue_full")
        assert int(reply.headers["Retry-After"]) >= 1
        await served.call("DELETE", f"/api/v1/batch/{first['batch_id']}")
        await served.order(inputs=["x"] * 2)


async def test_the_callback_arrives(tmp_path):
    """The receiver can tell by the signature who sent it; the batch shows that it was delivered."""
    got: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        got.put_nowait((await request.read(), request.headers))
        return web.Response(status=200)

    application = web.Application()
    application.router.add_post("/done", receive)
    async with TestServer(application) as server, api(tmp_path) as served:
        url = f"http://127.0.0.1:{server.port}/done"
        batch_id = (await served.order(callback_url=url))["batch_id"]
        body, headers = await asyncio.wait_for(got.get(), 90)

        told = json.loads(body)
        assert (told["batch_id"], told["status"], told["done"]) == (batch_id, "done", 1)
        at, _, signed = headers["X-Warmgate-Signature"].removeprefix("t=").partition(",v1=")
        assert signed == hmac.new(b"secret", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        assert headers["Idempotency-Key"] == batch_id
        await until(lambda: served.batches.readings()[2].value == 1)
        assert (await served.look(batch_id))["callback"] == {"status": "delivered", "tries": 1, "trouble": None}


async def test_an_adjusted_policy_takes_effect(tmp_path):
    """Without a restart, for the next order and for the work that goes on."""
    never = asyncio.Event()
    async with api(tmp_path, replace(POLICY, concurrency=1), a=FakeEngine((never,), concurrency=8)) as served:
        await served.order(inputs=["x", "y", "z"])
        await until(lambda: served.batches.readings()[1].value == 1)
        served.batches.adjust(replace(POLICY, concurrency=3, max_items=3))
        await until(lambda: served.batches.readings()[1].value == 3)

        await served.order(status=429)


async def test_what_is_never_done_is_ended_and_what_is_old_forgotten(tmp_path):
    """After the time that batches are kept, an open one fails and a finished one is gone."""
    async with api(tmp_path) as served:
        old = (await served.order())["batch_id"]
        await served.ended(old)
    never = asyncio.Event()
    async with api(tmp_path, a=FakeEngine((never,))) as served:
        stuck = (await served.order())["batch_id"]
        await served.batches._forget(served.batches._wall_clock() + 1)
        found = await served.call("GET", f"/api/v1/batch/{old}")

        assert found.status == 404
        assert (await served.call("GET", f"/api/v1/batch/{stuck}")).status == 404
