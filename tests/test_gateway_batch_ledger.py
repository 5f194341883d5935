"""The book of the batch queue: what it takes in, what it gives back, and when it forgets."""

import sqlite3
from pathlib import Path

import pytest

from gateway.batch.contract import Ended, KeyReused, QueueFullNow, TooLarge
from gateway.batch.ledger import MAX_BATCHES, Ledger
from tests.batch_world import after_crash, draft, open_ledger

MOST = (1000, 10_000)
URL = "https://example.com/"


@pytest.fixture
def ledger(tmp_path: Path):
    """Open a ledger for one test."""
    opened = Ledger(tmp_path / "batch")
    yield opened
    opened.close()


def accept(ledger: Ledger, name: str, items: list[bytes], **more: object):
    """Accept a batch in one step."""
    return ledger.put(draft(name, **more), items, *MOST, last=True)


def done(batch, *places: int) -> list[Ended]:
    """Make the ends of these items."""
    return [Ended(batch.number, place, "done", b"1") for place in places]


def test_a_batch_is_open_with_its_last_items(ledger):
    """Items come in lots; until the last the batch is not there, and then all of them wait in their order."""
    assert ledger.put(draft("b"), [b"0", b"1"], *MOST, last=False) is None
    assert ledger.find("b", "") is None
    assert ledger.open_batches() == []

    batch = accept(ledger, "b", [b"2"])

    assert (batch.total, batch.left, batch.status, batch.parameters) == (3, 3, "open", {"max_tokens": 4})
    assert [item.body for item in ledger.waiting(batch.number, 0, 10)] == [b"0", b"1", b"2"]
    assert [item.place for item in ledger.waiting(batch.number, 1, 1)] == [1]


def test_only_its_caller_sees_a_batch(ledger):
    """To another scope it does not exist."""
    accept(ledger, "b", [b"0"], scope="key:one")

    assert ledger.find("b", "key:one") is not None
    assert ledger.find("b", "key:two") is None


def test_ends_are_written_once(ledger):
    """The first end of an item stays; the last item's end completes the batch."""
    batch = accept(ledger, "b", [b"0", b"1"])

    assert ledger.end_items(done(batch, 0), 5.0) == []
    assert ledger.end_items([Ended(batch.number, 0, "failed", b"2")], 6.0) == []
    (finished,) = ledger.end_items(done(batch, 1, 1), 7.0)

    assert (finished.status, finished.done, finished.failed, finished.finished_at) == ("done", 2, 0, 7.0)
    assert [(row.status, row.body) for row in ledger.rows(batch.number, 0, 10)] == [("done", b"1")] * 2
    assert ledger.open_batches() == []


def test_a_batch_of_failures_has_failed(ledger):
    """Where nothing succeeded the whole has failed."""
    batch = accept(ledger, "b", [b"0"])

    assert ledger.end_items([Ended(batch.number, 0, "failed", b"{}")], 5.0)[0].status == "failed"


def test_a_cancelled_batch_keeps_what_was_done(ledger):
    """What waits is cancelled, what ended keeps its result, and ends that come later change nothing."""
    batch = accept(ledger, "b", [b"0", b"1"])
    ledger.end_items(done(batch, 0), 5.0)

    stopped = ledger.stop(batch.number, "cancelled", 6.0)

    assert (stopped.status, stopped.done, stopped.left) == ("cancelled", 1, 0)
    assert ledger.end_items(done(batch, 1), 7.0) == []
    assert ledger.stop(batch.number, "failed", 8.0, b"late") == stopped
    assert [row.status for row in ledger.rows(batch.number, 0, 10)] == ["done", "cancelled"]


def test_a_batch_that_is_given_up_fails_what_waits(ledger):
    """Its items have the error; the counts add up."""
    batch = accept(ledger, "b", [b"0", b"1"])
    ledger.end_items(done(batch, 1), 5.0)

    stopped = ledger.stop(batch.number, "failed", 6.0, b'"late"')

    assert (stopped.status, stopped.done, stopped.failed) == ("failed", 1, 1)
    assert ledger.rows(batch.number, 0, 1)[0].body == b'"late"'


def test_the_queue_is_bounded(ledger):
    """A batch that never fits is too large; one that does not fit now is told so, and leaves nothing behind."""
    with pytest.raises(TooLarge):
        ledger.put(draft("b"), [b"0"] * 4, 3, 100, last=True)
    with pytest.raises(TooLarge):
        ledger.put(draft("b"), [b"0" * 101], 3, 100, last=True)
    first = ledger.put(draft("b"), [b"0", b"1"], 3, 100, last=True)
    with pytest.raises(QueueFullNow):
        ledger.put(draft("c"), [b"2"] * 2, 3, 100, last=True)
    with pytest.raises(QueueFullNow):
        ledger.put(draft("c"), [b"2" * 99], 3, 100, last=True)
    ledger.end_items(done(first, 0), 5.0)

    assert ledger.put(draft("c"), [b"2"] * 2, 3, 100, last=True).total == 2


def test_a_draft_holds_room_until_it_is_discarded(ledger):
    """What is being read counts, so that two large files do not both squeeze in."""
    ledger.put(draft("b"), [b"0"] * 3, 3, 100, last=False)
    with pytest.raises(QueueFullNow):
        ledger.put(draft("c"), [b"0"], 3, 100, last=True)
    ledger.discard(draft("b"))

    assert ledger.put(draft("c"), [b"0"], 3, 100, last=True).total == 1


def test_a_draft_ends_with_its_process(tmp_path):
    """Nobody was told of it: the next process finds nothing of it, and its room free."""
    ledger, db = open_ledger(tmp_path / "0")
    ledger.put(draft("b"), [b"0"] * 3, 3, 100, last=False)
    fresh = after_crash(tmp_path / "0", tmp_path / "1")
    db.close()
    ledger, db = open_ledger(fresh)

    assert db.execute("SELECT count(*) FROM item").fetchone()[0] == 0
    assert ledger.put(draft("c"), [b"0"] * 3, 3, 100, last=True).total == 3
    ledger.close()


def test_the_number_of_open_batches_is_bounded(ledger):
    """Many small batches fill the queue as well as a large one does."""
    for number in range(MAX_BATCHES):
        ledger.put(draft(f"b{number}"), [b"0"], MAX_BATCHES * 2, 10**6, last=True)

    with pytest.raises(QueueFullNow):
        ledger.put(draft("c"), [b"0"], MAX_BATCHES * 2, 10**6, last=True)


def test_an_idempotency_key_makes_one_batch(ledger):
    """Whoever comes second gets the first one's batch, or is refused where the request is another."""
    first = accept(ledger, "b", [b"0"], key="k")
    ledger.put(draft("c", key="k"), [b"0"], *MOST, last=False)

    assert ledger.known("", "k", b"d") == first
    assert accept(ledger, "c", [b"0"], key="k") == first
    assert ledger.find("c", "") is None
    assert accept(ledger, "e", [b"0"], key="k", scope="other").id == "e"
    with pytest.raises(KeyReused):
        ledger.known("", "k", b"other")
    with pytest.raises(KeyReused):
        accept(ledger, "f", [b"0"], key="k", digest=b"other")


def test_a_callback_is_owed_once_and_keeps_its_tries(ledger):
    """It is due at the end of the batch, then when its next try is, and not after it was delivered."""
    batch = accept(ledger, "b", [b"0"], callback_url=URL)
    assert ledger.due(9.0, 10) == []
    ledger.end_items(done(batch, 0), 5.0)

    (owed,) = ledger.due(9.0, 10)
    ledger.begin_delivery(batch.number, 20.0)

    assert (owed.batch.id, owed.tries) == ("b", 0)
    assert ledger.due(9.0, 10) == []
    assert ledger.next_due() == 20.0
    assert ledger.due(20.0, 10)[0].tries == 1

    ledger.end_delivery(batch.number, "delivered", None)
    assert ledger.due(99.0, 10) == []
    assert ledger.next_due() is None
    assert ledger.delivery(batch.number) == ("delivered", 1, None)


def test_what_finished_long_ago_is_removed(ledger):
    """A batch goes with its items, results and callback; what is open, or finished later, stays."""
    old = accept(ledger, "old", [b"0"] * 3, callback_url=URL)
    recent, still_open = accept(ledger, "recent", [b"0"]), accept(ledger, "open", [b"0"])
    ledger.end_items(done(old, 0, 1, 2), 5.0)
    ledger.end_items(done(recent, 0), 9.0)

    while ledger.remove_finished(8.0):
        pass

    assert ledger.find("old", "") is None
    assert ledger.rows(old.number, 0, 10) == []
    assert ledger.delivery(old.number) is None
    assert ledger.find("recent", "") is not None
    assert ledger.overdue(0.5) == []
    assert ledger.overdue(1.5) == [still_open.number]


def test_a_page_of_results_is_bounded_in_bytes(ledger):
    """A page ends where it would be too large, and has one result at least."""
    batch = accept(ledger, "b", [b"0"] * 3)
    ledger.end_items([Ended(batch.number, place, "done", b"x" * (5 * 2**20)) for place in range(3)], 5.0)

    assert [row.place for row in ledger.rows(batch.number, 0, 10)] == [0]
    assert [row.place for row in ledger.rows(batch.number, 1, 10)] == [1]


def test_a_second_gateway_is_refused(ledger, tmp_path):
    """Two processes on one queue would do its work twice."""
    with pytest.raises(OSError, match="cannot be opened: another warmgate uses it"):
        Ledger(tmp_path / "batch", lambda path, **options: sqlite3.connect(path, **{**options, "timeout": 0.0}))


def test_a_queue_of_another_version_is_refused(tmp_path):
    """Its tables are not guessed at, and nothing is overwritten."""
    (tmp_path / "batch").mkdir()
    db = sqlite3.connect(tmp_path / "batch" / "batch.db")
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(OSError, match="version 99"):
        Ledger(tmp_path / "batch")


def test_a_damaged_queue_is_not_taken_for_an_empty_one(tmp_path):
    """What was accepted may be in it: the gateway says so and does not start."""
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "batch.db").write_bytes(b"no database at all" * 100)

    with pytest.raises(OSError, match="cannot be opened"):
        Ledger(tmp_path / "batch")


def test_the_files_are_their_owners_alone(ledger, tmp_path):
    """Inputs of clients are in them."""
    assert (tmp_path / "batch").stat().st_mode & 0o77 == 0
    assert (tmp_path / "batch" / "batch.db").stat().st_mode & 0o77 == 0
