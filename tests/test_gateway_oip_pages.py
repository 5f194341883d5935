"""What the Open Inference Protocol tells of the server and its models, and what it lets clients change."""

import pytest

from backends.contract import Task
from gateway.catalog import ModelState
from gateway.routes import Route
from tests.fakes import FakeEngine
from tests.oip_house import SAID, OipHouse, oip_house, simple
from tests.test_gateway_oip_http import INFER, question


async def test_server():
    """The server says who it is and what it can do beside the protocol's core; it is alive and ready."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        server = await house.json("GET", "/v2")
        assert await house.json("GET", "/v2/health/live") == {"live": True}
        assert await house.json("GET", "/v2/health/ready") == {"ready": True}

    assert server["name"] == "warmgate"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(server["extensions"])


async def test_a_server_that_is_not_ready_says_so_with_400():
    """While a model has fewer replicas than its settings promise, the server is not ready."""
    async with oip_house({"simple": (Task.INFER, FakeEngine(failures=1000))}) as house:
        house.house.pools["simple"].limits = house.house.pools["simple"].limits.__class__(min_replicas=1)
        reply = await house.call("GET", "/v2/health/ready")

    assert (reply.status, reply.body) == (400, b'{"ready":false}')


async def test_model():
    """A model tells of its tensors, batch included, and its configuration of them without it."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        model = await house.json("GET", "/v2/models/simple/versions/1")
        config = await house.json("GET", "/v2/models/simple/config")
        assert await house.json("GET", "/v2/models/simple/ready") == {"name": "simple", "ready": True}
        for path in ("", "/ready", "/config", "/stats"):
            words = "Request for unknown model: 'nobody' is not found"
            assert await house.refused("GET", f"/v2/models/nobody{path}") == (404, words)

    assert model["versions"] == ["1"]
    assert model["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [16]
    assert config["input"][0]["data_type"] == "TYPE_INT32"
    assert config["dynamic_batching"]["preferred_batch_size"] == [8]
    assert config["parameters"]["engine_version"]["string_value"] == "simple-1"


async def test_a_route_is_a_model_too():
    """A route has the tensors of the model behind it, under its own name."""
    routes = {"sums": Route("sums", ("simple",))}
    async with oip_house({"simple": (Task.INFER, simple())}, routes=routes) as house:
        assert (await house.json("GET", "/v2/models/sums"))["name"] == "sums"
        answer = await house.json("POST", "/v2/models/sums/infer", question())
        assert answer["model_name"] == "sums"
        assert [each["name"] for each in await house.json("POST", "/v2/repository/index", {})] == ["simple"]


async def stats(house: OipHouse) -> dict[str, object]:
    """Return what `simple` has done."""
    found = await house.json("GET", "/v2/models/simple/stats")
    assert found == await house.json("GET", "/v2/models/stats")
    described: dict[str, object] = found["model_stats"][0]
    return described


async def test_statistics():
    """Runs, hits and failures are counted, rows and all, with every field that clients read without asking."""
    two = question()
    for tensor in two["inputs"]:
        tensor |= {"shape": [2, 16], "data": [1] * 32}
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        before = await stats(house)
        await house.json("POST", INFER, two)
        await house.json("POST", INFER, two)
        after = await stats(house)

    kinds = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}
    assert set(before["inference_stats"]) == kinds
    assert all(each == {"count": 0, "ns": 0} for each in before["inference_stats"].values())
    counts = {kind: each["count"] for kind, each in after["inference_stats"].items()}
    assert counts == {**dict.fromkeys(kinds, 1), "success": 2, "queue": 2, "fail": 0}
    assert (after["inference_count"], after["execution_count"]) == (2, 1)
    assert [batch["batch_size"] for batch in after["batch_stats"]] == [2]
    assert after["last_inference"] > 0


async def test_a_model_is_unloaded_for_everybody_and_loaded_again(caplog):
    """An unloaded model is unknown and not ready, its replica ends; a load brings one up before it answers.

    The log says who did it.
    """
    caplog.set_level("INFO")
    engine = simple()
    unknown = (404, "Request for unknown model: 'simple' is not found")
    async with oip_house({"simple": (Task.INFER, engine)}) as house:
        await house.json("POST", INFER, question())
        assert (await house.call("POST", "/v2/repository/models/simple/unload", {})).status == 200
        assert await house.refused("POST", INFER, question()) == unknown
        assert await house.refused("GET", "/v2/models/simple/ready") == unknown
        (entry,) = await house.json("POST", "/v2/repository/index", {})
        assert entry["state"] in ("UNLOADING", "UNAVAILABLE")
        assert await house.json("POST", "/v2/repository/index", {"ready": True}) == []

        reply = await house.call("POST", "/v2/repository/models/simple/load", {})
        assert (reply.status, reply.body, engine.starts) == (200, b"", 2)
        (entry,) = await house.json("POST", "/v2/repository/index", {"ready": True})
        assert entry == {"name": "simple", "version": "1", "state": ModelState.READY, "reason": ""}
        await house.json("POST", INFER, question())
    told = [record.getMessage() for record in caplog.records if record.name == "gateway.surfaces.oip.control"]
    assert told == ["simple was unloaded for a caller without a key", "simple was loaded for a caller without a key"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nobody/load", {}, 404, "failed to load 'nobody'"),
        ("nobody/unload", {}, 404, "failed to unload 'nobody'"),
        ("simple/load", {"parameters": {"config": "{}"}}, 400, "config"),
        ("simple/load", {"parameters": {"file:1/model.onnx": "aGk="}}, 400, "file:1/model.onnx"),
        ("simple/load", b"[" * 250_000, 400, "JSON"),
        ("broken/load", {}, 503, "was told to fail"),
    ],
)
async def test_loads_that_cannot_be(path, body, status, words):
    """What cannot be loaded, or not as it was asked, is refused with the reason."""
    models = {"simple": (Task.INFER, simple()), "broken": (Task.CHAT, FakeEngine(SAID, failures=100))}
    async with oip_house(models) as house:
        found, told = await house.refused("POST", f"/v2/repository/models/{path}", body)

    assert found == status
    assert words in told


async def test_a_model_that_does_not_start_is_unavailable_with_the_reason():
    """The index tells why a model does not serve."""
    async with oip_house({"broken": (Task.CHAT, FakeEngine(SAID, failures=100))}) as house:
        await house.refused("POST", "/v2/repository/models/broken/load", {})
        (entry,) = await house.json("POST", "/v2/repository/index")
        ready = await house.call("GET", "/v2/models/broken/ready")

    assert entry["state"] == "UNAVAILABLE"
    assert "was told to fail" in entry["reason"]
    assert ready.status == 400


async def test_what_is_not_here_is_empty_or_refused():
    """Nothing is shared and nothing can be set: asking gives nothing, changing is refused."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        for path in ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/a/status"):
            assert await house.json("GET", path) == []
        for path in ("/v2/trace/setting", "/v2/models/simple/trace/setting", "/v2/logging"):
            assert await house.json("GET", path) == {}
            assert (await house.refused("POST", path, {"log_verbose_level": 1}))[0] == 501
        assert (await house.call("POST", "/v2/systemsharedmemory/unregister")).status == 200
        assert (await house.refused("POST", "/v2/systemsharedmemory/region/a/register", {"key": "/a"}))[0] == 501


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/nothing", 404), ("POST", "/v2", 405), ("POST", "/v2/models/simple", 405)],
)
async def test_what_is_not_served_is_told_in_the_protocols_shape(method, path, status):
    """A wrong path or method under /v2 is an error that the protocol's clients read."""
    async with oip_house({"simple": (Task.INFER, simple())}) as house:
        found, words = await house.refused(method, path)

    assert found == status
    assert isinstance(words, str)
