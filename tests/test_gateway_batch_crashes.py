"""The batch queue's ledger, whose process may end between any two statements: nothing accepted is lost."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.batch.contract import Ended
from tests.batch_world import Crash, after_crash, draft, open_ledger
from tests.test_gateway_batch_ledger import MOST, URL


@dataclass
class Expected:
    """What must be known of a batch; a set of states where a crash left it open which."""

    items: int
    status: str = "open"
    ends: dict[int, bytes] = field(default_factory=dict)
    tries: int = 0
    delivered: bool = False


class Crashes(RuleBasedStateMachine):
    """Any life of a ledger, with a crash at any statement: all that was told as done is there, and nothing half done.

    What was under way in a crash is either wholly there or not at all; the model then takes over what it finds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self.lives = 0
        self.names = 0
        self.expected: dict[str, Expected] = {}
        self.numbers: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        """Open an empty ledger."""
        self.directory = Path(self._place.name) / "0"
        self.ledger, self.db = open_ledger(self.directory)

    def teardown(self) -> None:
        """Close what is open."""
        self.ledger.close()
        self._place.cleanup()

    def revive(self) -> None:
        """Go on with the files as the crash left them."""
        self.lives += 1
        fresh = after_crash(self.directory, Path(self._place.name) / str(self.lives))
        self.db.steps_left = None
        self.db.close()
        self.directory = fresh
        self.ledger, self.db = open_ledger(fresh)

    def attempt(self, steps: float | None, action: Callable[..., object], *args: object, **kwargs: object) -> bool:
        """Do something, with a crash after so many statements; tell whether it was done without one."""
        self.db.steps_left = steps
        try:
            action(*args, **kwargs)
        except Crash:
            self.revive()
            return False
        self.db.steps_left = None
        return True

    STEPS = st.none() | st.integers(0, 24).map(lambda halves: halves / 2)

    @rule(lots=st.lists(st.integers(1, 3), min_size=1, max_size=3), callback=st.booleans(), steps=STEPS)
    def accept_batch(self, lots: list[int], callback: bool, steps: float | None) -> None:
        """Accept a batch in lots; the crash comes in the last."""
        self.names += 1
        name = f"b{self.names}"
        order = draft(name, callback_url=URL if callback else None)
        for size in lots[:-1]:
            self.ledger.put(order, [b"in"] * size, *MOST, last=False)
        whole = self.attempt(steps, self.ledger.put, order, [b"in"] * lots[-1], *MOST, last=True)
        found = self.ledger.find(name, "")
        assert found is not None or not whole
        if found is not None:
            assert found.total == sum(lots)
            self.expected[name] = Expected(found.total)
            self.numbers[name] = found.number

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), steps=STEPS)
    def end_some(self, data, steps: float | None) -> None:
        """Write ends of items of several batches in one transaction: all of them are there, or none."""
        chosen = data.draw(
            st.lists(
                st.sampled_from(sorted(self.expected)).flatmap(
                    lambda name: st.tuples(st.just(name), st.integers(0, self.expected[name].items - 1))
                ),
                min_size=1,
                max_size=4,
                unique=True,
            )
        )
        body = b"out %d" % self.lives
        ended = [Ended(self.numbers[name], place, "done", body) for name, place in chosen]
        new = [
            (name, place)
            for name, place in chosen
            if self.expected[name].status == "open" and place not in self.expected[name].ends
        ]
        whole = self.attempt(steps, self.ledger.end_items, ended, 5.0)
        written = [self.ledger.rows(self.numbers[name], place, 1)[0].body is not None for name, place in new]
        assert all(written) or not (whole or any(written))
        if all(written):
            for name, place in new:
                expected = self.expected[name]
                expected.ends[place] = body
                if len(expected.ends) == expected.items:
                    expected.status = "done"

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), steps=STEPS)
    def cancel(self, data, steps: float | None) -> None:
        """Cancel a batch."""
        name = data.draw(st.sampled_from(sorted(self.expected)))
        whole = self.attempt(steps, self.ledger.stop, self.numbers[name], "cancelled", 6.0)
        if self.expected[name].status == "open":
            found = self.ledger.find(name, "")
            assert found.status == "cancelled" or not whole
            self.expected[name].status = found.status

    @rule(steps=STEPS, success=st.booleans())
    def call_back(self, steps: float | None, success: bool) -> None:
        """Make one try of a callback that is due, with a crash before, in or after writing down that it begins."""
        for owed in self.ledger.due(1e9, 1):
            expected = self.expected[owed.batch.id]
            assert owed.tries == expected.tries
            assert not expected.delivered
            whole = self.attempt(steps, self.ledger.begin_delivery, owed.batch.number, 9.0)
            tries = self.ledger.delivery(owed.batch.number)[1]
            assert tries == expected.tries + 1 or (tries == expected.tries and not whole)
            expected.tries = tries
            if whole and success:
                expected.delivered = True
                self.ledger.end_delivery(owed.batch.number, "delivered", None)

    @rule()
    def crash(self) -> None:
        """End between two calls."""
        self.revive()

    @invariant()
    def all_is_there(self) -> None:
        """Every accepted batch has its items, all ends that were told of, and one callback if it is owed one."""
        open_now = {batch.id for batch in self.ledger.open_batches()}
        assert open_now == {name for name, expected in self.expected.items() if expected.status == "open"}
        owed = {owed.batch.id for owed in self.ledger.due(1e9, 1000)}
        for name, expected in self.expected.items():
            found = self.ledger.find(name, "")
            rows = self.ledger.rows(found.number, 0, 1000)
            assert found.status == expected.status
            assert found.done == len(expected.ends)
            assert {row.place: row.body for row in rows if row.status == "done"} == expected.ends
            assert len(rows) == expected.items
            waiting = len(self.ledger.waiting(found.number, 0, 1000))
            assert waiting == (expected.items - len(expected.ends) if expected.status == "open" else 0)
            finished_with_callback = expected.status != "open" and found.callback_url is not None
            assert (name in owed) == (finished_with_callback and not expected.delivered)


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=50, stateful_step_count=30)
