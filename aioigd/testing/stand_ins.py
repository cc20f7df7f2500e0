"""What takes the place of private data in a recording? Equal data get the same stand-in, however they are written.

Addresses come from the ranges for documentation, of the same kind as before (public, private, shared, link-local).
Words keep their length, and which of their characters are capitals, digits, or not ASCII.

Stand-ins are numbered in the order in which data occur. So what is replaced once more stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

__all__ = ["StandIns"]

_LETTERS: Final = "ghijklmnopqrstuvwxyz"
"""Letters of words: none of them is a hexadecimal digit, so that no stand-in looks like a MAC address."""
_FOREIGN: Final = "ä"
"""The character that stands for any that is not ASCII. Latin-1 has it, too."""

_TRIES: Final = 100
"""Words that are passed over because they are kept elsewhere."""

_KEPT: Final = frozenset({"0.0.0.0", "127.0.0.1", "239.255.255.250"})  # noqa: S104 - no binding
_MASK = re.compile(r"255(\.255|\.254|\.252|\.248|\.240|\.224|\.192|\.128|\.0){3}")
_KEPT_V6: Final = frozenset(
    map(IPv6Address, ("::", "::1", *(f"ff0{scope}::{group}" for scope in "1258e" for group in ("1", "2", "c"))))
)
"""Addresses that are nobody's: they are kept."""
_PUBLIC: Final = (IPv4Address("198.51.100.1"), IPv4Address("203.0.113.1"))  # RFC 5737, 254 addresses each
_PRIVATE: Final = IPv4Address("192.0.2.1")
_MORE_PUBLIC: Final = IPv4Address("198.19.0.1")  # RFC 2544, for benchmarks; half of it for each kind
_MORE_PRIVATE: Final = IPv4Address("198.18.0.1")
_SHARED: Final = IPv4Address("100.64.0.1")  # RFC 6598
_LINK_LOCAL: Final = IPv4Address("169.254.1.0")  # RFC 3927
_MULTICAST: Final = IPv4Address("233.252.0.1")  # RFC 6676
_SUBNET: Final = 254
_UNIQUE_LOCAL: Final = IPv6Network("fc00::/7")


class StandIns:
    """The stand-ins that were given out, and those to come.

    ``is_kept`` tells of a word whether it is kept wherever it occurs, so that it cannot stand for another.
    """

    def __init__(self, is_kept: Callable[[str], bool]) -> None:
        self._is_kept = is_kept
        self._given: dict[tuple[str, str], str] = {}
        self._numbers: dict[str, int] = {}

    def uuid(self, digits: str) -> str:
        """Return the 32 digits that stand for those of a UUID."""
        return self._instead("uuid", digits.lower(), "{:032d}".format)

    def mac(self, digits: str) -> str:
        """Return the digits that stand for those of a MAC address (12), an EUI-64 (16), or a longer one."""
        width = len(digits)
        first = {12: 0x00005E005300, 16: 0x00005EEF10000000}.get(width, 0)  # RFC 9542 section 2.1
        return self._instead(f"mac {width}", digits.lower(), lambda number: f"{first + number:0{width}x}")

    def nonce(self, nonce: bytes) -> bytes:
        """Return the nonce of a mapping that stands for another one."""
        size = len(nonce)
        return bytes.fromhex(self._instead("nonce", nonce.hex(), f"{{:0{2 * size}x}}".format))

    def serial(self, text: str) -> str:
        """Return what stands for a serial number."""
        return self._instead("serial", text, "serial-{}".format)

    def v4(self, address: IPv4Address) -> str:
        """Return the address that stands for another one."""
        text = str(address)
        if text in _KEPT or _MASK.fullmatch(text):
            return text
        first, second = address.packed[:2]
        if text.startswith("224.0.0."):
            return text
        if address.is_multicast:
            return self._instead("multicast", text, lambda number: str(_MULTICAST + (number - 1) % _SUBNET))
        if address.is_link_local:
            return self._instead("link-local", text, lambda number: str(_LINK_LOCAL + number % 0xFD00))
        if first == 100 and 64 <= second < 128:
            return self._instead("shared", text, lambda number: str(_SHARED + (number - 1) % 0x3FFFFE))
        if address.is_global or (first, second) in ((198, 51), (203, 0), (198, 19)):
            return self._instead("public", text, _public)
        return self._instead("private", text, _private)

    def v6(self, address: IPv6Address) -> str:
        """Return the address that stands for another one."""
        if address in _KEPT_V6:
            return str(address)
        if address.ipv4_mapped is not None:
            return f"::ffff:{self.v4(address.ipv4_mapped)}"
        if address.is_multicast:
            return self._instead("v6", str(address), f"ff{address.packed[1]:02x}::db8:{{:x}}".format)
        if address.is_link_local:
            return self._instead("v6", str(address), "fe80::{:x}".format)
        if address in _UNIQUE_LOCAL:
            return self._instead("v6", str(address), "fd00:db8::{:x}".format)
        return self._instead("v6", str(address), "2001:db8::{:x}".format)

    def word(self, plain: str) -> str:
        """Return the word that stands for another one; ``plain`` has no escapes."""
        key = ("word", plain.lower())
        if key not in self._given:
            self._given[key] = self._new_word(plain)
        standing = self._given[key]
        if len(standing) != len(plain):
            return standing
        return "".join(
            new.upper() if old.isupper() and new.isascii() else new for old, new in zip(plain, standing, strict=True)
        )

    def let_word_be(self, plain: str, standing: str) -> None:
        """Have a word replaced by a text that was given for it as something else."""
        self._given.setdefault(("word", plain.lower()), standing)

    def _new_word(self, plain: str) -> str:
        if plain.isascii():
            shape = "".join("0" if each.isdigit() else "g" for each in plain)
        else:
            shape = "g" * (len(plain) - 1) + _FOREIGN
        word = ""
        for _ in range(_TRIES):
            number = self._numbers.get(shape, 0)
            self._numbers[shape] = number + 1
            word = _numbered(shape, number)
            capitals = "".join(
                new.upper() if old.isupper() and new.isascii() else new for old, new in zip(plain, word, strict=True)
            )
            if not self._is_kept(capitals):
                break
        return word

    def _instead(self, kind: str, original: str, stand_in: Callable[[int], str]) -> str:
        key = (kind, original)
        if key not in self._given:
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
            self._given[key] = stand_in(self._numbers[kind])
        return self._given[key]


def _numbered(shape: str, number: int) -> str:
    """Return a number written in the letters and digits of a shape; too great a one begins anew."""
    written = []
    for each in reversed(shape):
        if each == _FOREIGN:
            written.append(each)
            continue
        digits = "0123456789" if each == "0" else _LETTERS
        number, digit = divmod(number, len(digits))
        written.append(digits[digit])
    return "".join(reversed(written))


def _public(number: int) -> str:
    subnet, offset = divmod(number - 1, _SUBNET)
    return str(_PUBLIC[subnet] + offset if subnet < 2 else _MORE_PUBLIC + (number - 1 - 2 * _SUBNET) % 0xFFFE)


def _private(number: int) -> str:
    return str(_PRIVATE + (number - 1) if number <= _SUBNET else _MORE_PRIVATE + (number - 1 - _SUBNET) % 0xFFFE)
