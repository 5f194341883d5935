"""Entries that wait to be written, in their order and within bounds. Knows neither where to nor who writes them."""

from cache.contract import Entry

_BATCH_ENTRIES = 64
_BATCH_BYTES = 1 << 20


class WriteQueue:
    """At most one entry of a key. `entries` is to be read only."""

    def __init__(self, most_entries: int, most_bytes: int) -> None:
        self.entries: dict[bytes, Entry] = {}
        self._bytes = 0
        self._most_entries = most_entries
        self._most_bytes = most_bytes

    def put(self, entry: Entry) -> bool:
        """Queue an entry in place of another of its key; return whether there was room: else neither is queued."""
        self.remove(entry.key)
        size = len(entry.value)
        if len(self.entries) >= self._most_entries or self._bytes + size > self._most_bytes:
            return False
        self.entries[entry.key] = entry
        self._bytes += size
        return True

    def remove(self, key: bytes) -> None:
        """Forget the entry of a key, where there is one."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value)

    def take(self) -> list[Entry]:
        """Take the oldest entries, as many as are written at a time."""
        batch: list[Entry] = []
        size = 0
        while self.entries and len(batch) < _BATCH_ENTRIES and size < _BATCH_BYTES:
            entry = self.entries.pop(next(iter(self.entries)))
            batch.append(entry)
            size += len(entry.value)
        self._bytes -= size
        return batch

    def clear(self) -> int:
        """Forget all; return how many there were."""
        count = len(self.entries)
        self.entries.clear()
        self._bytes = 0
        return count
