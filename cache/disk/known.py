"""Which keys may be on disk: what it denies is not there. Knows no database.

A Bloom filter (Bloom, *Space/time trade-offs in hash coding with allowable errors*, 1970): most requests are new, and
none of them need wait for a thread to find nothing.
"""

_BITS_PER_KEY = 16
_PROBES = 4
_LEAST_BITS = 1 << 16


class Known:
    """A set of keys that may say yes to one that was never added, and never no to one that was."""

    def __init__(self, capacity: int) -> None:
        """Make room for so many keys: beyond them it says yes too often."""
        self.capacity = max(capacity, _LEAST_BITS // _BITS_PER_KEY)
        self.added = 0
        bits = 1 << (self.capacity * _BITS_PER_KEY - 1).bit_length()
        self._mask = bits - 1
        self._bits = bytearray(bits // 8)

    def add(self, key: bytes) -> None:
        """Say yes to the key from now on."""
        self.added += 1
        place, step = self._probe(key)
        for _ in range(_PROBES):
            self._bits[place >> 3] |= 1 << (place & 7)
            place = (place + step) & self._mask

    def __contains__(self, key: bytes) -> bool:
        place, step = self._probe(key)
        for _ in range(_PROBES):
            if not self._bits[place >> 3] >> (place & 7) & 1:
                return False
            place = (place + step) & self._mask
        return True

    def _probe(self, key: bytes) -> tuple[int, int]:
        """Return the first place and the odd step to the others."""
        number = hash(key)
        return number & self._mask, (number >> 32) | 1
