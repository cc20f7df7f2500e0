"""The exit codes of the command: what they are, and which failure has which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ..errors import IGDError, UsageError
from ..results import UPnPResult

__all__ = ["ABSENT", "EXPLAINED", "Exit", "exit_for"]


class Exit(IntEnum):
    """How the command can end."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_GATEWAY = 3
    FINDINGS = 4
    INTERRUPTED = 130
    TERMINATED = 143


EXPLAINED: Final = {
    Exit.OK: "done",
    Exit.FAILED: "it failed: the gateway refused, was silent, or gave only a part",
    Exit.USAGE: "wrong usage, or the extra is not installed",
    Exit.NO_GATEWAY: "no gateway was found",
    Exit.FINDINGS: "doctor has found something wrong",
    Exit.INTERRUPTED: "ended by Ctrl-C (0 where that is the end: add --keep, watch)",
    Exit.TERMINATED: "ended by SIGTERM (0 for these two)",
}

ABSENT: Final = frozenset({UPnPResult.NO_SUCH_ENTRY_IN_ARRAY, UPnPResult.PORT_MAPPING_NOT_FOUND})
"""What a gateway says of a mapping that is not there."""
_NOBODY: Final = frozenset({UPnPResult.NO_DEVICES, UPnPResult.NO_GATEWAY})


def exit_for(error: IGDError) -> Exit:
    """Return the exit code for a failure."""
    if isinstance(error, UsageError):
        return Exit.USAGE
    return Exit.NO_GATEWAY if error.result in _NOBODY else Exit.FAILED
