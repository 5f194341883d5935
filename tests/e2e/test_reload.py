"""Edits of the config file while the program runs: they take effect, lose nothing, and a bad one changes nothing."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from scripts.running_gateway import ROOT
from tests.e2e.edits import ECHO, OTHER, Edited, editing, names
from tests.e2e.program import DEADLINE_S, Stream, chat, config, metric, needs, pool, started, text_of, until, workers

SLOW_START_S = 1.5
ECHO_ANEW = ECHO.replace("--port", f"--start-s {SLOW_START_S} --port")
ATLAS = f"  atlas: {{task: chat, onnx: {{path: {ROOT / 'var/models/atlas'}}}, pool: {{min: 1}}}}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edited]:
    """Run one program for the tests of this module."""
    with editing(tmp_path_factory.mktemp("edited"), ECHO) as found:
        yield found


@pytest.fixture
def edited(shared: Edited) -> Edited:
    """Have the program serve one command model, whatever the test before has left."""
    shared.edit(shared.text(ECHO))
    return shared


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
    until(lambda: [r["state"] for r in pool(edited.url, "echo")["replicas"]] == ["ready"], "one is up")
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
    until(lambda: [r["state"] for r in pool(edited.url, "echo")["replicas"]] == ["ready"], "one is up")
    before = pool(edited.url, "echo")["replicas"]

    edited.edit(edited.text(ECHO.replace("max: 1", "max: 3")))

    assert pool(edited.url, "echo")["max_replicas"] == 3
    now = pool(edited.url, "echo")["replicas"]  # the forecast may use the room for one more
    assert (now[0]["name"], now[0]["since"]) == (before[0]["name"], before[0]["since"])


@pytest.mark.parametrize(
    ("bad", "line", "words"),
    [
        ('models:\n  echo: {task: chat, command: {run: "x {port}"}, pool: {max: two}}\n', 2, "max"),
        ("models: {unclosed\n", 2, ""),
        ("models:\n  none: {task: chat, onnx: {path: no/where}}\n", 2, "no/where"),
    ],
)
def test_a_bad_edit_changes_nothing_and_is_told(edited: Edited, bad: str, line: int, words: str) -> None:
    """What was in force stays; page, metric and log say what is wrong and where, until a sound edit follows."""
    fault = edited.refused(bad)

    assert fault["line"] == line
    assert words in fault["message"]
    assert metric(edited.url, "warmgate_config_in_force") == 0
    assert f"{edited.file}:{line}: {fault['message'].splitlines()[0]}" in edited.gateway.log_text()
    assert text_of(chat(edited.url, "echo", "still there")) == "echo: still there"
    edited.edit(edited.text(ECHO, OTHER))
    assert edited.state()["faults"] == []
    assert metric(edited.url, "warmgate_config_in_force") == 1


def test_of_many_faults_the_first_are_told(edited: Edited) -> None:
    """A file that is wrong throughout fills neither the log nor the page; no secret of it is in either."""
    text = "models:\n" + "".join(
        f"  m{n}: {{task: chat, http: {{url: nowhere, key: sk-{n}-secret}}}}\n" for n in range(80)
    )
    edited.refused(text)
    faults = edited.state()["faults"]
    assert len(faults) == 51
    assert faults[-1]["message"] == "and 30 more"
    assert "-secret" not in edited.gateway.log_text()
    assert "-secret" not in str(faults)


def test_edits_in_a_row_settle_on_the_last(edited: Edited) -> None:
    """An edit that comes while a slow one is applied follows it, and what lies between two looks is never served."""
    edited.rename_over(edited.text(ECHO_ANEW))
    until(lambda: len(pools_of(edited)) == 2, "the slow edit is being applied")
    for number in range(5):
        edited.rename_over(edited.text(ECHO, OTHER) + f"# {number}\n")
        time.sleep(0.02)
    edited.rename_over(edited.text(ECHO, OTHER, routes="{last: {candidates: [echo]}}"))

    until(lambda: names(edited.url) == ["echo", "other", "last"], "the last edit is in force")
    until(lambda: len(pools_of(edited)) == 1, "nothing is left of the slow one")
    assert text_of(chat(edited.url, "last", "settled")) == "echo: settled"


def pools_of(edited: Edited) -> list[str]:
    """Return the command lines of the servers that run."""
    found = []
    for each in workers(edited.gateway):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found.append(" ".join(each.cmdline()))
    return found


def test_a_stop_in_the_midst_of_an_edit(tmp_path: Path) -> None:
    """What the edit has begun is undone, requests in flight end, and the program leaves nothing behind."""
    with started(config(tmp_path, ECHO), tmp_path) as (gateway, family):
        edited = Edited(gateway, tmp_path)
        edited.rename_over(edited.text(ECHO.replace("--port", "--start-s 60 --port")))
        until(lambda: len(pools_of(edited)) == 2, "the edit is being applied")
        with Stream(gateway.url, "echo", "slow " + "word " * 50) as stream:
            first = next(stream.texts())
            gateway.process.send_signal(signal.SIGTERM)
            assert len((first + "".join(stream.texts())).split()) == 52
        assert gateway.process.wait(DEADLINE_S) == 0, gateway.log_text()
        family.wait_gone()
        assert "Traceback" not in gateway.log_text()


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


def test_what_takes_the_place_of_the_file_is_told_and_holds_up_nothing(tmp_path: Path) -> None:
    """A pipe, a directory or a loop of symlinks is the fault while it is there; the file's return and a stop go on."""
    with started(config(tmp_path, ECHO), tmp_path) as (gateway, family):
        edited = Edited(gateway, tmp_path)
        text, beside = edited.text(ECHO), tmp_path / "beside"
        for make, words in (
            (os.mkfifo, "it is no regular file"),
            (os.mkdir, "Is a directory"),
            (lambda path: path.symlink_to("config.yaml"), "Too many levels of symbolic links"),
            (os.mkfifo, "it is no regular file"),
        ):
            edited.file.rename(beside) if edited.file.is_file() else remove(edited.file)
            make(edited.file)
            until(lambda said=words: said in str(edited.state()["faults"]), f"the fault is: {words}")
            assert len(edited.state()["faults"]) == 1
        edited.edit(text)
        assert edited.state()["faults"] == []
        edited.edit(edited.text(ECHO, OTHER))
        assert names(edited.url) == ["echo", "other"]

        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").replace(edited.file)
        until(lambda: edited.state()["faults"], "the pipe has been seen")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(DEADLINE_S) == 0, gateway.log_text()
        family.wait_gone()


def remove(path: Path) -> None:
    """Remove whatever is there."""
    path.rmdir() if path.is_dir() else path.unlink()


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


def test_edits_under_load_lose_no_request(edited: Edited) -> None:
    """Models and routes are added, changed and removed forty times while clients ask: every answer is right."""
    shapes = [
        edited.text(ECHO, OTHER),
        edited.text(ECHO, OTHER, routes="{talk: {candidates: [other, echo]}}"),
        edited.text(ECHO.replace("max: 1", "max: 2"), routes="{talk: {candidates: [echo]}}"),
        edited.text(ECHO.replace("pool:", "pool:").replace("run:", "concurrency: 8, run:")),
        edited.text(ECHO, server="request_timeout: 90s"),
    ]
    before = edited.state()["generation"]
    with load(edited.url, "echo", 4) as wrong:
        for number in range(40):
            edited.edit(shapes[number % len(shapes)] + f"# edit {number}\n")

    assert wrong == []
    assert edited.state()["generation"] >= before + 40


def test_a_real_model_is_added_and_answers(edited: Edited) -> None:
    """A model of our own workers can be added to a program that began without one."""
    needs("atlas")
    edited.edit(edited.text(ECHO, ATLAS))

    assert "Paris" in text_of(chat(edited.url, "atlas", "What is the capital of France?"))
