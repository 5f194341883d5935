"""What stands before a client's connection: it answers the requests whose bytes it knows, and leaves it all others.

It has a part only while the connection rests, and takes whole requests alone; whatever else comes goes on untouched.
"""

import asyncio

from gateway.callers.auth import is_loopback
from gateway.lane.heads import END
from gateway.lane.lane import Lane
from gateway.serving.connection import Connection
from gateway.serving.rules import Rules


class Door(asyncio.Protocol):
    """Gives each piece that comes to the lane, where there is one, and the connection what the lane does not take."""

    def __init__(self, rules: Rules, connection: Connection) -> None:
        self._rules = rules
        self._connection = connection
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection begin."""
        self._connection.connection_made(transport)
        self._write = transport.write  # type: ignore[attr-defined]
        self._is_local = is_loopback(self._connection.peer)

    def data_received(self, data: bytes) -> None:
        """Answer what is known, as far as that is whole."""
        connection, lane = self._connection, self._rules.lane
        if lane is not None and connection.resting and (self._is_local or lane.heads.keyed):
            data = self._past(lane, data)
            if not data:
                return
        connection.data_received(data)
        if lane is not None and (noted := connection.noted()) is not None:
            lane.heads.learn(*noted, connection.peer)

    def _past(self, lane: Lane, data: bytes) -> bytes:
        """Take what is known and whole, and return what is left for the connection to read."""
        connection = self._connection
        while connection.resting and data:
            begins = data.find(END) + len(END)
            head = data[:begins]
            known = lane.heads.get(head) or lane.heads.of_another_length(head)
            if known is None or len(data) < (ends := begins + known.body_bytes):
                break
            group, body = known.group, data[begins:ends]
            if group is not None and (reply := lane.reply(group, body)) is not None:
                self._write(reply)
                connection.written(known.incoming)
            elif group is not None and (errand := lane.begin(group, body, connection)) is not None:
                connection.begin(known.incoming, errand)
            elif len(data) == ends:  # a request that was sent ahead of others waits for the reader of them all
                connection.take(known.again(body))
            else:
                break
            data = data[ends:]
        return data
