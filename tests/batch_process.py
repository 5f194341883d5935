"""A process that accepts batches and works on them until it is killed, and says on standard output what it was told.

Called with the queue's directory, the callbacks' URL, the number of the first order and how far its clock is ahead.
A line on standard input ends the orders: it then waits until all is done and delivered.
"""

import asyncio
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from backends.contract import Finish, Text
from gateway.answer import Answer, Head
from gateway.batch.contract import BatchPolicy
from gateway.batch.ledger import Ledger
from gateway.batch.orders import Order
from gateway.batch.service import Batches
from gateway.errors import BatchQueueFull
from gateway.pipeline import Pipeline
from gateway.request import Caller

MOST_ITEMS = 600
POLICY = BatchPolicy(max_items=2000, callback_secret=b"secret", allow_private=True)


class Upper:
    """Stands in for the pipeline: answers with the prompt in capitals, after a moment."""

    async def answer(self, request: Any, *_: object) -> Any:
        """Answer."""
        await asyncio.sleep(random.random() / 500)
        text = request.job.messages[0].content.upper()
        return SimpleNamespace(answer=Answer(Head("a", "v1", 0.0), (Text(text), Finish("stop"))))

    async def collect(self, outcome: Any) -> Any:
        """Return the outcome, which is complete."""
        return outcome


def inputs(number: int) -> list[str]:
    """Return the inputs of an order, the same in every process; most orders are small, some have several lots."""
    count = MOST_ITEMS if number % 7 == 3 else 1 + number % 5
    return [f"order {number} item {place}" for place in range(count)]


def say(*words: object) -> None:
    """Tell the test."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def order_on(batches: Batches, url: str, first: int, over: asyncio.Event) -> None:
    """Order one batch after the other, each under its own key; where there is no room, wait."""
    number = first
    while not over.is_set():
        say("ordering", number)
        order = Order("a", "generate", {}, inputs(number), url)
        with suppress(BatchQueueFull):
            batch = await batches.accept(order, "generate", Caller(""), f"order-{number}", b"%d" % number)
            say("accepted", number, batch.id)
            number += 1
        await asyncio.sleep(random.random() / 100)


async def main(directory: Path, url: str, first: int, ahead_s: float) -> None:
    """Run until killed, or until all is done."""
    batches = Batches(
        directory,
        POLICY,
        pipeline=lambda: cast("Pipeline", Upper()),
        caller_of=Caller,
        wall_clock=lambda: time.time() + ahead_s,
    )
    await batches.open()
    batches.start()
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    await order_on(batches, url, first, over)
    while True:
        if not await batches._desk.do(Ledger.open_batches) and await batches._desk.do(Ledger.next_due) is None:
            break
        await asyncio.sleep(0.01)
    await batches.close(1.0)
    say("over")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
