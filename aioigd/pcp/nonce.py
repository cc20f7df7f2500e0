"""Which nonce has a mapping? One that the same program has again after it was started anew.

PCP renews and deletes a mapping only for who knows the nonce with which it was made (RFC 6887 section 11.1). A nonce
that is derived from a secret and from what identifies the mapping is known again without a memory.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import cache
from pathlib import Path
from typing import Final

from .wire.pcp import NONCE_SIZE

__all__ = ["default_secret", "derive_nonce"]

_MACHINE_IDS: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_RANDOM_SIZE: Final = 32


def derive_nonce(secret: bytes, router: str, client: str, proto: str, internal_port: int) -> bytes:
    """Return the nonce of a mapping: of a router, for a port of a client (both are addresses)."""
    text = "\n".join((router, client, proto, str(internal_port)))
    return hmac.digest(secret, text.encode(), "sha256")[:NONCE_SIZE]


@cache
def default_secret() -> bytes:
    """Return the secret of this user on this machine; a random one for this process where the machine has no id.

    The id of a machine is not to be shown to a network (machine-id(5)), and HMAC does not show it.
    """
    for path in _MACHINE_IDS:
        try:
            machine = path.read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        if machine and hasattr(os, "getuid"):
            return hashlib.sha256(f"aioigd PCP {machine} {os.getuid()}".encode()).digest()
    return os.urandom(_RANDOM_SIZE)
