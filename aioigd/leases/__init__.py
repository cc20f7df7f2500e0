"""Mappings that are kept alive: renewed, added again when the gateway loses them, deleted when their lease ends.

Reaches the gateway through ``core``, whatever the protocol; knows nothing of the mapper.
"""

from .lease import Change, ChangeKind, Lease, LeasedPort, LeaseState, PendingLease

__all__ = ["Change", "ChangeKind", "Lease", "LeaseState", "LeasedPort", "PendingLease"]
