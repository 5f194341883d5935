"""The tier that several gateways share: answers, leases on what is being made, and purges, in Redis or Valkey."""

from cache.shared.tier import SharedTier

__all__ = ["SharedTier"]
