"""The access log of a running gateway: an edit switches it on, and each request is one line, whichever way it went."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.edits import ECHO, editing
from tests.e2e.program import Stream, chat, chat_body, connect, text_of, until

SECRET = "nobody may read this"


def lines(file: Path) -> list[dict[str, Any]]:
    """Read what is written so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_an_edit_has_each_request_written_whichever_way_it_went(tmp_path: Path) -> None:
    """A miss, a repeat, many repeats over one connection, one that is passed on, a stream and a refusal."""
    log = tmp_path / "logs" / "access.jsonl"
    with editing(tmp_path, ECHO) as edited:
        chat(edited.url, "echo", "before it is switched on")
        edited.edit(edited.text(ECHO, server=f"access_log: {log}"))
        for _ in range(2):
            text_of(chat(edited.url, "echo", SECRET))
        kept = connect(edited.url)
        passed_on = json.dumps(chat_body("echo", SECRET, temperature=1))
        for body in [json.dumps(chat_body("echo", SECRET))] * 3 + [passed_on] * 3:
            kept.request("POST", "/v1/chat/completions", body, {"Authorization": "Bearer sk-nobody"})
            assert kept.getresponse().read()
        kept.close()
        with Stream(edited.url, "echo", SECRET, temperature=1) as stream:
            assert list(stream.texts())
        assert chat(edited.url, "nobody", SECRET).status == 404
        until(lambda: len(lines(log)) == 10, "all lines are written")

    told = lines(log)
    assert [(line["model"], line["cache"], line["status"]) for line in told] == [
        ("echo", "miss", 200),
        *[("echo", "exact", 200)] * 4,
        *[("echo", "bypass", 200)] * 4,
        ("nobody", "none", 404),
    ]
    assert all(line["service_s"] > 0 for line in told if line["cache"] in ("miss", "bypass"))
    assert [line["timestamp_s"] for line in told] == sorted(line["timestamp_s"] for line in told)
    assert SECRET not in log.read_text()
    assert "sk-" not in log.read_text()
