"""Edits of models, caches, devices and batches while requests are in flight: each key does what is promised of it."""

import hashlib
import http.client
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psutil
import pytest

from scripts.benchmarks.programs import free_port
from scripts.running_gateway import ROOT
from tests.e2e.edits import ECHO, OTHER, Edited, editing, names
from tests.e2e.program import (
    MINILM,
    Stream,
    call,
    chat,
    chat_body,
    connect,
    metric,
    needs,
    pool,
    text_of,
    until,
    workers,
)

LONG = "slow " + "word " * 100
KEY_ONE, KEY_TWO = (
    f"{{name: {key}, sha256: {hashlib.sha256(key.upper().encode()).hexdigest()}}}" for key in ("one", "two")
)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edited]:
    """Run one program for all tests of this module; each begins with its own edit."""
    with editing(tmp_path_factory.mktemp("edited"), ECHO) as found:
        yield found


def whole(stream: Stream) -> list[str]:
    """Read a stream to its end."""
    return "".join(stream.texts()).split()


def ask(kept: http.client.HTTPConnection, key: str) -> int:
    """Ask with a key over a connection that is kept; return the status."""
    kept.request(
        "POST", "/v1/chat/completions", json.dumps(chat_body("echo", "hello")), {"Authorization": f"Bearer {key}"}
    )
    response = kept.getresponse()
    response.read()
    return response.status


def replicas(url: str, model: str) -> list[tuple[str, float]]:
    """Return the ready replicas of a model, with the time since when they are."""
    return [(one["name"], one["since"]) for one in pool(url, model)["replicas"] if one["state"] == "ready"]


def processes(edited: Edited) -> set[int]:
    """Return the processes of the program, its own included."""
    return {each.pid for each in psutil.Process(edited.gateway.process.pid).children(recursive=True)}


def test_a_new_engine_that_cannot_start_is_refused(edited: Edited) -> None:
    """The old replica serves on, no process is left, and the fault names the line; what goes with it is gone."""
    edited.edit(edited.text(ECHO, server=f"keys: [{KEY_ONE}, {KEY_TWO}]"))
    before, family = replicas(edited.url, "echo"), processes(edited)

    with closing(connect(edited.url)) as kept:
        assert [ask(kept, key) for key in ("ONE", "TWO") * 2] == [200] * 4
        fault = edited.refused(edited.text(ECHO.replace("--port", "--fail --port"), server=f"keys: [{KEY_TWO}]"))
        assert [ask(kept, key) for key in ("ONE", "TWO")] == [401, 200]

    assert edited.state()["refused_keys"] == ["one"]
    assert fault["key"] == "models.echo"
    line = edited.text(ECHO).split("\n").index(ECHO) + 1
    assert fault["line"] == line
    assert f"{edited.file}:{line}: models.echo: echo cannot start" in edited.gateway.log_text()
    assert replicas(edited.url, "echo") == before
    until(lambda: processes(edited) == family, "nothing is left of the new engine")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('run: "', 'env: {LEVEL: "2"}, run: "'),
        ('run: "', 'concurrency: 3, run: "'),
        ('run: "', 'ready: /v1/models, run: "'),
        ('run: "', 'model: changed, run: "'),
    ],
)
def test_a_changed_command_is_started_anew(edited: Edited, old: str, new: str) -> None:
    """A stream ends at the old server while the new one answers already; then the old one is gone."""
    edited.edit(edited.text(ECHO))
    before = replicas(edited.url, "echo")
    with Stream(edited.url, "echo", LONG + new) as stream:
        first = next(stream.texts())

        edited.edit(edited.text(ECHO.replace(old, new)))

        after = replicas(edited.url, "echo")
        assert after != before
        answered = text_of(chat(edited.url, "echo", f"mirror {new}"))
        assert ('"model":"changed"' in answered) == ("changed" in new)
        assert (first + "".join(stream.texts())).split()[:3] == ["echo:", "slow", "word"]
    until(lambda: len(workers(edited.gateway)) == 1, "the old server is gone")


def test_a_removed_model_serves_its_queue(edited: Edited) -> None:
    """Requests that stream, and that wait in the queue, are served; new ones are told that there is no such model."""
    narrow = OTHER.replace("{run:", "{concurrency: 1, run:")
    edited.edit(edited.text(ECHO, narrow))
    with Stream(edited.url, "other", LONG) as stream, ThreadPoolExecutor(3) as clients:
        first = next(stream.texts())
        waiting = [clients.submit(chat, edited.url, "other", f"queued {number}") for number in range(3)]
        until(lambda: pool(edited.url, "other")["queued"] == 3, "three wait")

        edited.edit(edited.text(ECHO))

        assert chat(edited.url, "other", "late").status == 404
        assert len((first + "".join(stream.texts())).split()) == 102
        assert [text_of(each.result()) for each in waiting] == [f"echo: queued {number}" for number in range(3)]
    until(lambda: len(workers(edited.gateway)) == 1, "its server is gone")


def test_limits_of_a_pool(edited: Edited) -> None:
    """More of a minimum starts replicas; less of a maximum, and of the time to stay, ends them."""
    edited.edit(edited.text(ECHO))
    first = replicas(edited.url, "echo")
    edited.edit(edited.text(ECHO.replace("min: 1, max: 1", "min: 2, max: 2")))
    until(lambda: len(replicas(edited.url, "echo")) == 2, "a second replica is up")
    edited.edit(edited.text(ECHO.replace("min: 1, max: 1", "min: 1, max: 1, queue: 7")))
    until(lambda: len(workers(edited.gateway)) == 1, "the second replica is gone")
    assert pool(edited.url, "echo")["queue_limit"] == 7
    edited.edit(edited.text(ECHO.replace("min: 1", "min: 0, keep_warm: 100ms")))
    until(lambda: not workers(edited.gateway), "nothing idle is left")
    edited.edit(edited.text(ECHO))
    until(lambda: len(replicas(edited.url, "echo")) == 1, "it is up again")
    assert replicas(edited.url, "echo") != first


@pytest.fixture
def upstreams() -> Iterator[tuple[str, str]]:
    """Run two upstreams that somebody else runs; yield their URLs."""
    ports = [free_port(), free_port()]
    running = [psutil.Popen([sys.executable, ROOT / "tests/openai_server.py", "--port", str(port)]) for port in ports]
    try:
        for port in ports:
            until(lambda port=port: _answers(port), "the upstream answers")
        yield f"http://127.0.0.1:{ports[0]}/v1", f"http://127.0.0.1:{ports[1]}/v1"
    finally:
        for each in running:
            each.kill()
            each.wait()


def _answers(port: int) -> bool:
    try:
        return call(f"http://127.0.0.1:{port}", "GET", "/health").status == 200
    except ConnectionRefusedError:
        return False


def test_an_upstream_is_exchanged(edited: Edited, upstreams: tuple[str, str]) -> None:
    """New requests go to the changed upstream, under the changed name; a stream ends at the old one."""
    far = '  far: {{task: chat, http: {{url: "{}", model: {}, concurrency: {}}}}}'
    edited.edit(edited.text(ECHO, far.format(upstreams[0], "one", 4)))
    with Stream(edited.url, "far", LONG) as stream:
        first = next(stream.texts())
        for number, (url, model, concurrency) in enumerate([(1, "one", 4), (1, "two", 4), (1, "two", 9), (0, "x", 1)]):
            edited.edit(edited.text(ECHO, far.format(upstreams[url], model, concurrency)))
            assert f'"model":"{model}"' in text_of(chat(edited.url, "far", f"mirror {number}"))
            assert pool(edited.url, "far")["slots_per_replica"] == concurrency
        assert len((first + "".join(stream.texts())).split()) == 102
    edited.edit(edited.text(ECHO))
    assert names(edited.url) == ["echo"]


def test_model_files_that_changed_are_picked_up(edited: Edited) -> None:
    """Any saved edit replaces the replicas of a model whose files are others now, and their answers are new ones."""
    needs("intents")
    directory = edited.directory / "intents"
    shutil.copytree(ROOT / "var/models/intents", directory)
    intents = f"  intents: {{task: predict, onnx: {{path: {directory}}}, pool: {{min: 1}}}}"
    edited.edit(edited.text(ECHO, intents))
    until(lambda: replicas(edited.url, "intents"), "it is up")

    def ask() -> Any:
        return call(edited.url, "POST", "/api/v1/predict", {"model": "intents", "input": "play some music"}).json()

    before, ready = ask(), replicas(edited.url, "intents")
    labels = directory / "labels.txt"
    labels.write_text(labels.read_text(encoding="utf-8").replace(before["prediction"], "renamed"), encoding="utf-8")
    edited.edit(edited.text(ECHO, intents))
    after = ask()
    assert after["prediction"] == "renamed"
    assert after["model_version"] != before["model_version"]
    assert replicas(edited.url, "intents") != ready

    (directory / "model.yaml").write_text("task: nothing\n", encoding="utf-8")
    fault = edited.refused(edited.text(ECHO, intents))
    assert fault["key"] == "models.intents"
    assert "task: 'nothing'" in fault["message"]
    assert ask()["prediction"] == "renamed"


def test_a_directory_of_another_task_is_refused(edited: Edited) -> None:
    """A model whose files do something else would refuse every request: the edit is refused in place of that."""
    needs("minilm")
    fault = edited.refused(edited.text(ECHO, MINILM.replace("task: embed", "task: predict")))
    assert "does embed, not predict" in fault["message"]


def test_threads_and_gpus_replace_the_replicas(edited: Edited) -> None:
    """Workers are replaced under a stream that goes on; with other GPUs the fork server and commands are as well."""
    needs("atlas")
    atlas = f"  atlas: {{task: chat, onnx: {{path: {ROOT / 'var/models/atlas'}, threads: 1}}, pool: {{min: 1}}}}"
    edited.edit(edited.text(ECHO, atlas))
    until(lambda: replicas(edited.url, "atlas"), "it is up")
    worker, command = replicas(edited.url, "atlas"), replicas(edited.url, "echo")
    with Stream(edited.url, "echo", LONG + "gpus") as stream:
        first = next(stream.texts())
        edited.edit(edited.text(ECHO, atlas.replace("threads: 1", "threads: 2")))
        assert replicas(edited.url, "echo") == command
        assert (worker := [replicas(edited.url, "atlas"), worker][0]) != command
        family = psutil.Process(edited.gateway.process.pid).children()

        edited.edit(edited.text(ECHO, atlas.replace("threads: 1", "threads: 2")) + "devices: {gpus: all}\n")

        assert replicas(edited.url, "echo") != command
        assert replicas(edited.url, "atlas") != worker
        assert "Paris" in text_of(chat(edited.url, "atlas", "What is the capital of France?"))
        assert len((first + "".join(stream.texts())).split()) == 103
    until(lambda: not any(each.is_running() for each in family), "the old fork server is gone")
    assert len(psutil.Process(edited.gateway.process.pid).children()) == 1


def test_host_memory_bounds_what_is_up(edited: Edited) -> None:
    """A smaller budget ends an idle replica at once; a greater one lets it come back."""
    idle = ECHO.replace("min: 1", "min: 0, keep_warm: 1h")
    edited.edit(edited.text(idle))
    text_of(chat(edited.url, "echo", "come up"))
    assert workers(edited.gateway)
    edited.edit(edited.text(idle) + "devices: {host_memory: 1MiB}\n")
    until(lambda: not workers(edited.gateway), "the idle replica is stopped")
    edited.edit(edited.text(ECHO))
    until(lambda: replicas(edited.url, "echo"), "it is up again")


def test_no_room_for_both(edited: Edited) -> None:
    """Where the budget holds one replica, the old one ends first; requests wait for the new one, and none is lost."""
    until(lambda: replicas(edited.url, "echo"), "it is up")
    holds = pool(edited.url, "echo")["replica_bytes"]
    budget = f"devices: {{host_memory: {int(holds * 1.5) >> 20}MiB}}\n"
    edited.edit(edited.text(ECHO) + budget)
    before = replicas(edited.url, "echo")
    with ThreadPoolExecutor(2) as clients, Stream(edited.url, "echo", LONG + "room") as stream:
        first = next(stream.texts())
        edited.edit(edited.text(ECHO.replace("{run:", "{concurrency: 5, run:")) + budget)
        waiting = clients.submit(chat, edited.url, "echo", "wait for it")
        assert len((first + "".join(stream.texts())).split()) == 103
        assert text_of(waiting.result()) == "echo: wait for it"
    assert "no room to start the new replicas beside the old ones" in edited.gateway.log_text()
    assert replicas(edited.url, "echo") != before


def test_routes(edited: Edited) -> None:
    """Every part of a route counts from the next request on; a removed name is unknown."""
    far = '  far: {task: chat, http: {url: "http://127.0.0.1:9/v1"}}'
    shapes = {
        "{talk: {candidates: [far], fallback: [echo]}}": 200,
        "{talk: {candidates: [far]}}": 502,
        "{talk: {split: {echo: 1}}}": 200,
        "{talk: {split: {far: 1}, fallback: [echo], cache: {enabled: false}}}": 200,
        "{other-talk: {candidates: [echo]}}": 404,
    }
    for number, (routes, status) in enumerate(shapes.items()):
        edited.edit(edited.text(ECHO, far, routes=routes))
        answered = chat(edited.url, "talk", f"routed {number}")
        assert answered.status == status, routes
        if "enabled" in routes:
            assert "stored" not in answered.headers["cache-status"]


def hit(edited: Edited, text: str) -> str:
    """Ask twice in the same words; return what became of the second."""
    text_of(chat(edited.url, "echo", text, temperature=0))
    found: str = chat(edited.url, "echo", text, temperature=0).headers["cache-status"]
    return found


def test_the_cache_in_use_is_adjusted(edited: Edited) -> None:
    """Less memory drops answers at once, and a shorter time to live counts for new ones; what is known stays known."""
    edited.edit(edited.text(ECHO))
    text = "remember " + "x" * 100_000
    for number in range(12):
        text_of(chat(edited.url, "echo", f"{text} {number}", temperature=0))
    assert metric(edited.url, "warmgate_cache_bytes") > 2**20
    edited.edit(edited.text(ECHO).replace("memory: 16MiB", "memory: 1MiB"))
    assert 0 < metric(edited.url, "warmgate_cache_bytes") <= 2**20
    assert "hit" in chat(edited.url, "echo", f"{text} 11", temperature=0).headers["cache-status"]
    edited.edit(edited.text(ECHO).replace("ttl: 1h", "ttl: 1s"))
    assert "hit" in hit(edited, "for a second")
    until(lambda: "hit" not in hit_once(edited, "for a second"), "the answer has expired")


def hit_once(edited: Edited, text: str) -> str:
    """Ask only for what is cached; return what became of it."""
    asked = {"model": "echo", "messages": [{"role": "user", "content": text}], "temperature": 0}
    headers = {"Cache-Control": "only-if-cached"}
    found: str = call(edited.url, "POST", "/v1/chat/completions", asked, **headers).headers.get("cache-status", "")
    return found


def test_the_cache_is_removed_moved_and_put_back_under_a_stream(edited: Edited) -> None:
    """Streams go on over each of these edits; what is on disk in a directory is found again when it is named again."""
    edited.edit(edited.text(ECHO))
    assert "hit" in hit(edited, "kept on disk")
    cached = ("cache:", "  directory", "  graphs", "  exact")
    plain = "\n".join(line for line in edited.text(ECHO).splitlines() if not line.startswith(cached))
    with Stream(edited.url, "echo", LONG + "cache") as stream:
        first = next(stream.texts())
        edited.edit(plain + "\n")
        assert "hit" not in hit(edited, "kept on disk")
        edited.edit(edited.text(ECHO, cache=str(edited.directory / "elsewhere")))
        assert "hit" not in hit_once(edited, "kept on disk")
        edited.edit(edited.text(ECHO).replace("disk: 64MiB", "disk: 0B"))
        assert "hit" not in hit_once(edited, "kept on disk")
        edited.edit(edited.text(ECHO))
        assert "hit" in hit_once(edited, "kept on disk")
        assert len((first + "".join(stream.texts())).split()) == 103


def test_meanings(edited: Edited) -> None:
    """The semantic cache is opened, adjusted, and closed; what it knew from disk it knows again."""
    needs("minilm")
    first, second = "What is the capital of France?", "what is the capital of france"
    on = edited.text(ECHO, MINILM.replace(", pool: {min: 1}", ""), semantic=True)
    edited.edit(on)
    until(lambda: replicas(edited.url, "minilm"), "the embedder is up")
    text_of(chat(edited.url, "echo", first, temperature=0))
    until(lambda: "detail=semantic" in hit_once(edited, second), "it is found by its meaning")
    edited.edit(on.replace("budget: 2s}\nmodels", "budget: 2s, threshold: 1}\nmodels"))
    assert "hit" not in hit_once(edited, second)
    edited.edit(edited.text(ECHO))
    assert "hit" not in hit_once(edited, second)
    edited.edit(on)
    until(lambda: "detail=semantic" in hit_once(edited, second), "it is found again")
    edited.edit(edited.text(ECHO))


def test_batches(edited: Edited) -> None:
    """The queue is opened, goes on over edits, is closed with work in it, and put back does what is left, once."""
    items = [f"item {number}" for number in range(500)]
    batch = f"batch: {{directory: {edited.directory / 'batch'}, concurrency: 2}}\n"

    def state(batch_id: str) -> Any:
        return call(edited.url, "GET", f"/api/v1/batch/{batch_id}?limit=1000").json()

    off = call(edited.url, "POST", "/api/v1/batch", {"model": "echo", "inputs": ["a"]})
    words = "batches are off: the config has no section 'batch'"
    assert (off.status, off.json()["error"]["message"]) == (404, words)
    edited.edit(edited.text(ECHO) + batch)
    ordered = call(edited.url, "POST", "/api/v1/batch", {"model": "echo", "inputs": items})
    assert ordered.status == 202, ordered.body
    batch_id = ordered.json()["batch_id"]
    until(lambda: metric(edited.url, "warmgate_batch_items_waiting") < 490, "it is worked on")
    edited.edit(edited.text(ECHO))
    assert call(edited.url, "GET", f"/api/v1/batch/{batch_id}").status == 404
    edited.edit(edited.text(ECHO) + batch.replace("batch,", "other-batch,"))
    assert call(edited.url, "GET", f"/api/v1/batch/{batch_id}").status == 404
    edited.edit(edited.text(ECHO, OTHER) + batch.replace("concurrency: 2", "concurrency: 8"))
    done = until(lambda: (found := state(batch_id))["status"] == "done" and found, "all is done")
    assert sorted(each["index"] for each in done["results"]) == list(range(500))
    edited.edit(edited.text(ECHO))
