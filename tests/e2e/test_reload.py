"""Edits of the config file while the program runs: they take effect, lose nothing, and a bad one changes nothing."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.programs import free_port
from scripts.running_gateway import ROOT, RunningGateway
from tests.e2e.program import SERVER, Stream, call, chat, config, connect, metric, needs, pool, started, text_of, until

SLOW_START_S = 1.5
ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}, pool: {{min: 1, max: 1}}}}'
ECHO_ANEW = ECHO.replace("--port", f"--start-s {SLOW_START_S} --port")
OTHER = f'  other: {{task: chat, command: {{run: "{SERVER}"}}, pool: {{max: 1}}}}'
ATLAS = f"  atlas: {{task: chat, onnx: {{path: {ROOT / 'var/models/atlas'}}}, pool: {{min: 1}}}}"


class Edited:
    """A running program and its config file."""

    def __init__(self, gateway: RunningGateway, directory: Path) -> None:
        self.url = gateway.url
        self.directory = directory
        self.file = directory / "config.yaml"
        self.gateway = gateway

    def text(self, *models: str, **options: Any) -> str:
        """Make a config that listens where the program listens."""
        made = config(self.directory, *models, **options)
        return made.replace("127.0.0.1:0", self.url.removeprefix("http://"))

    def state(self) -> dict[str, Any]:
        """Return what the program says of its config."""
        found: dict[str, Any] = call(self.url, "GET", "/admin/config").json()
        return found

    def rename_over(self, text: str) -> None:
        """Save as editors do: a new file renamed over the old."""
        fresh = self.directory / "fresh.yaml"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.file)

    def edit(self, text: str) -> None:
        """Save, and wait until it is in force."""
        before = self.state()["generation"]
        self.rename_over(text)
        until(lambda: self.state()["generation"] > before, "the edit is in force")


@pytest.fixture
def edited(tmp_path: Path) -> Iterator[Edited]:
    """Run a program with one command model."""
    with started(config(tmp_path, ECHO), tmp_path) as (gateway, _):
        found = Edited(gateway, tmp_path)
        found.edit(found.text(ECHO))  # from now on the port is named, so that no edit changes it
        yield found


def names(url: str) -> list[str]:
    """Return the models that clients are offered."""
    return [model["id"] for model in call(url, "GET", "/v1/models").json()["data"]]


def test_models_and_routes_come_and_go_while_a_stream_flows(edited: Edited) -> None:
    """A new model and route answer as soon as they are saved; one that is taken out ends its streams first."""
    edited.edit(edited.text(ECHO, OTHER, routes="{talk: {candidates: [other]}}"))
    assert names(edited.url) == ["echo", "other", "talk"]
    assert text_of(chat(edited.url, "talk", "one two")) == "echo: one two"
    with Stream(edited.url, "other", "slow " + "word " * 100) as stream:
        pieces = stream.texts()
        first = next(pieces)

        edited.edit(edited.text(ECHO))

        assert names(edited.url) == ["echo"]
        assert chat(edited.url, "other", "gone?").status == 404
        assert (first + "".join(pieces)).split() == ["echo:", "slow", *["word"] * 100]


def test_old_replicas_serve_until_the_new_ones_are_ready(edited: Edited) -> None:
    """While a changed engine starts, requests are answered by the old one at once; then the new one answers."""
    before = pool(edited.url, "echo")["replicas"][0]["since"]
    generation = edited.state()["generation"]

    edited.rename_over(edited.text(ECHO_ANEW))
    asked = 0
    while edited.state()["generation"] == generation:
        answered = chat(edited.url, "echo", f"question {asked}")
        assert text_of(answered) == f"echo: question {asked}"
        assert "start;dur=0.00" in answered.headers["server-timing"]
        asked += 1

    assert asked > 1
    assert pool(edited.url, "echo")["replicas"][0]["since"] > before
    assert text_of(chat(edited.url, "echo", "after")) == "echo: after"


def test_limits_of_a_pool_change_without_a_restart(edited: Edited) -> None:
    """A changed pool section leaves the replica that runs."""
    before = pool(edited.url, "echo")["replicas"]

    edited.edit(edited.text(ECHO.replace("max: 1", "max: 3")))

    assert pool(edited.url, "echo")["max_replicas"] == 3
    assert [(r["name"], r["since"]) for r in pool(edited.url, "echo")["replicas"]] == [
        (r["name"], r["since"]) for r in before
    ]


@pytest.mark.parametrize(
    ("bad", "line", "words"),
    [
        ("models:\n  echo: {task: chat, command: {run: \"x {port}\"}, pool: {max: two}}\n", 2, "max"),
        ("models: {unclosed\n", 2, ""),
        ("models:\n  none: {task: chat, onnx: {path: no/where}}\n", None, "no/where"),
    ],
)
def test_a_bad_edit_changes_nothing_and_is_told(edited: Edited, bad: str, line: int | None, words: str) -> None:
    """What was in force stays; the page, a metric and the log say what is wrong, until a sound edit follows."""
    refused = metric(edited.url, "warmgate_config_refused_total")

    edited.rename_over(bad)

    until(lambda: metric(edited.url, "warmgate_config_refused_total") == refused + 1, "the edit is refused")
    fault = edited.state()["faults"][0]
    assert fault["line"] == line
    assert words in fault["message"]
    assert metric(edited.url, "warmgate_config_in_force") == 0
    assert fault["message"].splitlines()[0] in edited.gateway.log_text()
    assert text_of(chat(edited.url, "echo", "still there")) == "echo: still there"
    edited.edit(edited.text(ECHO, OTHER))
    assert edited.state()["faults"] == []
    assert metric(edited.url, "warmgate_config_in_force") == 1


def answers(url: str) -> bool:
    """Tell whether anybody listens there."""
    try:
        return call(url, "GET", "/healthz").status == 200
    except ConnectionRefusedError:
        return False


def test_listening_elsewhere_and_connections_that_stay(edited: Edited) -> None:
    """A new address is listened at, the old one no more; a connection made before goes on."""
    address = f"127.0.0.1:{free_port()}"
    with closing(connect(edited.url)) as kept:
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()

        edited.rename_over(edited.text(ECHO).replace(edited.url.removeprefix("http://"), address))

        until(lambda: answers(f"http://{address}"), "the new address is listened at")
        until(lambda: not answers(edited.url), "the old address is left")
        kept.request("GET", "/admin/config")
        assert json.loads(kept.getresponse().read())["faults"] == []


def test_symlinks_are_followed_to_where_they_lead_now(tmp_path: Path) -> None:
    """A swap of the link that the file is behind is an edit, as when a mounted volume changes."""
    for name, models in {"one": (ECHO,), "two": (ECHO, OTHER)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(config(tmp_path, *models), encoding="utf-8")
    with started(config(tmp_path, ECHO), tmp_path) as (gateway, _):
        (tmp_path / "data").symlink_to("one")
        (tmp_path / "link.yaml").symlink_to("data/config.yaml")
        (tmp_path / "link.yaml").replace(tmp_path / "config.yaml")
        swapped = tmp_path / "data.new"
        swapped.symlink_to("two")

        os.replace(swapped, tmp_path / "data")  # noqa: PTH105 - as the volume's own program does

        until(lambda: "other" in gateway.log_text() or "other" in names(gateway.url), "the swap is in force")


@contextmanager
def load(url: str, model: str, clients: int) -> Iterator[list[str]]:
    """Ask questions of a model all the time; the list gets each answer that was not right."""
    wrong: list[str] = []
    over = threading.Event()

    def ask(client: int) -> int:
        number = 0
        while not over.is_set():
            answered = chat(url, model, f"question {client} {number}")
            if answered.status != 200 or text_of(answered) != f"echo: question {client} {number}":
                wrong.append(f"{answered.status} {answered.body!r}")
            number += 1
        return number

    with ThreadPoolExecutor(clients) as pool_of_clients:
        asking = [pool_of_clients.submit(ask, client) for client in range(clients)]
        try:
            yield wrong
        finally:
            over.set()
        assert min(each.result() for each in asking) > 0


@pytest.mark.timeout(240)
def test_a_hundred_edits_under_load_lose_no_request(edited: Edited) -> None:
    """Models and routes are added, changed and removed a hundred times while clients ask: every answer is right."""
    shapes = [
        edited.text(ECHO, OTHER),
        edited.text(ECHO, OTHER, routes="{talk: {candidates: [other, echo]}}"),
        edited.text(ECHO.replace("max: 1", "max: 2"), routes="{talk: {candidates: [echo]}}"),
        edited.text(ECHO.replace("pool:", "pool:").replace("run:", "concurrency: 8, run:")),
        edited.text(ECHO, server="request_timeout: 90s"),
    ]
    with load(edited.url, "echo", 4) as wrong:
        for number in range(100):
            edited.edit(shapes[number % len(shapes)] + f"# edit {number}\n")

    assert wrong == []
    assert edited.state()["generation"] >= 100


def test_a_real_model_is_added_and_answers(edited: Edited) -> None:
    """A model of our own workers can be added to a program that began without one."""
    needs("atlas")
    edited.edit(edited.text(ECHO, ATLAS))

    assert "Paris" in text_of(chat(edited.url, "atlas", "What is the capital of France?"))
