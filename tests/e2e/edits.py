"""A running program whose config file is edited, for the tests of edits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.running_gateway import RunningGateway
from tests.e2e.program import SERVER, call, config, metric, started, until

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}, pool: {{min: 1, max: 1}}}}'
OTHER = f'  other: {{task: chat, command: {{run: "{SERVER}"}}, pool: {{max: 1}}}}'


class Edited:
    """A running program and its config file."""

    def __init__(self, gateway: RunningGateway, directory: Path) -> None:
        self.url = gateway.url
        self.directory = directory
        self.file = directory / "config.yaml"
        self.gateway = gateway
        self._edits = 0

    def text(self, *models: str, **options: Any) -> str:
        """Make a config that listens where the program listens, and lets what an edit leaves flow to its end."""
        made = config(self.directory, *models, **options).replace("shutdown_timeout: 10s", "shutdown_timeout: 2m", 1)
        return made.replace("127.0.0.1:0", self.url.rpartition("/")[2], 1)

    def state(self) -> dict[str, Any]:
        """Return what the program says of its config."""
        found: dict[str, Any] = call(self.url, "GET", "/admin/config").json()
        return found

    def rename_over(self, text: str) -> None:
        """Save as editors do: a new file renamed over the old."""
        fresh = self.directory / "fresh.yaml"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.file)

    def edit(self, text: str) -> float:
        """Save, and wait until it is in force; return how long that took. The same text once more is an edit too."""
        before = self.state()["generation"]
        self._edits += 1
        since = time.monotonic()
        self.rename_over(f"{text}# edit {self._edits}\n")
        until(lambda: self.state()["generation"] > before, "the edit is in force")
        return time.monotonic() - since

    def refused(self, text: str) -> dict[str, Any]:
        """Save what cannot be applied; return the first fault that the program tells of."""
        before = metric(self.url, "warmgate_config_refused_total")
        self.rename_over(text)
        until(lambda: metric(self.url, "warmgate_config_refused_total") == before + 1, "the edit is refused")
        fault: dict[str, Any] = self.state()["faults"][0]
        return fault


@contextmanager
def editing(directory: Path, *models: str) -> Iterator[Edited]:
    """Run a program with these models and a config that names the port, so that no edit changes that."""
    with started(config(directory, *models), directory) as (gateway, _):
        found = Edited(gateway, directory)
        found.edit(found.text(*models))
        yield found


def names(url: str) -> list[str]:
    """Return the models that clients are offered."""
    return [model["id"] for model in call(url, "GET", "/v1/models").json()["data"]]
