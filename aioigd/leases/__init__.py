"""Mappings that stay: kept alive, made again when the router loses them, gone when their owner is.

Sees the gateway through a Protocol (``keepable.Keepable``), and knows nothing of the mapper.
"""

from .lease import Change, ChangeKind, Lease, LeaseState

__all__ = ["Change", "ChangeKind", "Lease", "LeaseState"]
