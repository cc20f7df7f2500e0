"""Removes private data from a recording: addresses, UUIDs, MAC addresses and serial numbers are replaced.

Each is replaced by a value that is reserved for documentation, the same one wherever it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["Scrubber"]

_KEPT: Final = frozenset({"0.0.0.0", "127.0.0.1", "239.255.255.250", "255.255.255.255"})  # noqa: S104 - no binding
_KEPT_V6: Final = frozenset({"::", "::1", "ff02::c", "ff05::c"})
"""Addresses that are not private: they are kept."""
_SERIAL = re.compile(r"(<(?:\w+:)?serialNumber>)\s*([^<\s][^<]{0,80}?)\s*(</)", re.IGNORECASE)
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_MAC = re.compile(r"\b[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}\b", re.IGNORECASE)
_BARE_MAC = re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{12}\b", re.IGNORECASE)
_V4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)", re.ASCII)
_V6 = re.compile(r"(?<![\w:.])(?=[0-9a-f:.]*:[0-9a-f:.]*:)[0-9a-f:.]{2,45}(?:%25[\w.-]+|%[\w.-]+)?(?![\w:])", re.I)


class Scrubber:
    """Replaces private data, equal values by equal ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def text(self, text: str) -> str:
        """Return a text without private data."""
        text = _SERIAL.sub(lambda found: f"{found[1]}{self._instead('serial', found[2], 'serial-{}')}{found[3]}", text)
        text = _UUID.sub(self._by("uuid", "00000000-0000-0000-0000-{:012d}"), text)
        text = _MAC.sub(self._by("mac", "00:00:5e:00:53:{:02x}"), text)
        text = _BARE_MAC.sub(self._by("bare mac", "00005e0053{:02x}"), text)
        text = _V4.sub(lambda found: self._v4(found[0]), text)
        return _V6.sub(lambda found: self._v6(found[0]), text)

    def _by(self, kind: str, pattern: str) -> Callable[[re.Match[str]], str]:
        return lambda found: self._instead(kind, found[0].lower(), pattern)

    def _instead(self, kind: str, original: str, pattern: str) -> str:
        key = (kind, original)
        if key not in self._known:
            number = sum(known == kind for known, _ in self._known) + 1
            self._known[key] = pattern.format(number)
        return self._known[key]

    def _v4(self, text: str) -> str:
        try:
            address = IPv4Address(text)
        except ValueError:
            return text
        if text in _KEPT:
            return text
        # Whether an address is public matters for a diagnosis, the address itself does not (RFC 5737, RFC 6598).
        if address.is_loopback or address.is_private:
            return self._instead("private", text, "192.0.2.{}")
        if not address.is_global:
            return self._instead("shared", text, "100.64.0.{}")
        return self._instead("public", text, "198.51.100.{}")

    def _v6(self, text: str) -> str:
        bare = text.partition("%")[0]
        try:
            address = IPv6Address(bare)
        except ValueError:
            return text
        if str(address) in _KEPT_V6:
            return text
        return self._instead("v6", str(address), "fe80::{:x}" if address.is_link_local else "2001:db8::{:x}")
