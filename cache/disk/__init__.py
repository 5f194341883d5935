"""The tier that survives a restart: rows in one diskcache database. The only home of diskcache."""

from cache.disk.store import DiskCounters, DiskStore

__all__ = ["DiskCounters", "DiskStore"]
