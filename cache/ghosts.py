"""Which keys have left the memory tier lately, in eight bytes each: nearly true, which is all that admission needs."""

from array import array

_SLOT_BYTES = 8
_FEWEST_SLOTS = 64
_LOW = 0xFFFF_FFFF


class Ghosts:
    """A table of fingerprints, each with the moment that it was put there, counted in puts.

    Keys are digests: any of their bytes tell them apart. One is forgotten once as many others were put as `limit` says,
    or when one takes its place. Two keys are taken for each other about once in four thousand million look-ups: then an
    answer is let in too early.
    """

    def __init__(self) -> None:
        self._puts = 0
        self._slots = array("Q")

    @property
    def used_bytes(self) -> int:
        """What the table takes."""
        return len(self._slots) * _SLOT_BYTES

    def put(self, key: bytes, limit: int, most_bytes: int) -> None:
        """Remember the key; the table grows with `limit` up to `most_bytes`, and starts anew when it does."""
        if 2 * limit > len(self._slots):
            wanted = max(_FEWEST_SLOTS, 2 * len(self._slots))
            if wanted * _SLOT_BYTES <= most_bytes:
                self._slots = array("Q", bytes(wanted * _SLOT_BYTES))
        if self._slots:
            place, mark = self._place(key)
            self._puts += 1
            self._slots[place] = mark << 32 | self._puts & _LOW

    def take(self, key: bytes, limit: int) -> bool:
        """Tell whether the key is among the last `limit` that were put, and forget it."""
        if not self._slots:
            return False
        place, mark = self._place(key)
        slot = self._slots[place]
        if not slot or slot >> 32 != mark:
            return False
        self._slots[place] = 0
        return (self._puts - slot) & _LOW < limit

    def clear(self) -> None:
        """Forget all."""
        self._slots = array("Q")

    def _place(self, key: bytes) -> tuple[int, int]:
        return int.from_bytes(key[:8]) & (len(self._slots) - 1), int.from_bytes(key[8:12])
