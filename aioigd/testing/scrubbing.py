"""Removes private data from a recording.

What is kept is on a list, everything else is replaced. A word is kept if it is known (:mod:`.known_words`), if it is
known in part and stands in the name of an element, attribute or header, or if a device states it as its manufacturer,
model or server software. The place where a number stands decides whether it is kept. Addresses, UUIDs, MAC addresses
and serial numbers are replaced as a whole, whatever is around them. Punctuation, blanks, markup and line ends stay, so
that what is broken stays broken.

Each message is read once, from its beginning to its end, in time that is linear in its length.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, unquote

from .known_words import has_known_part, is_known
from .message_text import decoded, with_text
from .pcp_scrubbing import scrubbed
from .stand_ins import StandIns

__all__ = ["Place", "Scrubber"]


class Place(Enum):
    """Where a word or number stands, which decides what of it is kept."""

    LOOSE = "loose"  #: where there are only words of the standard: also numbers of up to five digits
    NUMBER = "number"  #: a number of the standard: any number
    URL = "url"  #: ports, and numbers of up to two digits
    STRICT = "strict"  #: free text, or a place that is not known: digits that stand alone
    SECRET = "secret"  #: nothing  # noqa: S105 - no password


_ELEMENT_PLACES: Final = {
    Place.URL: re.compile(
        "urlbase|scpdurl|controlurl|eventsuburl|presentationurl|manufacturerurl|modelurl|location|url"
    ),
    Place.SECRET: re.compile(
        r"(?!.*(?:keyword|passthrough))"
        r".*(?:serial|pass|pwd|psk|secret|token|session|cookie|credential|login|wpa|wep|key|pincode|user|phone|msisdn"
        r"|im[es]i|iccid|ssid|mail|latitude|longitude|geo|street|city|zip|postal).*"
    ),
    Place.NUMBER: re.compile(
        r"(?:new|x_)?\w*(?:port|ports|portmappingindex|portmappingnumberofentries|portnumberofentries|leaseduration"
        r"|leasetime|uptime|bytessent|bytesreceived|packetssent|packetsreceived|pinholepackets|bitrate|maxbitrate"
        r"|uniqueid|systemupdateid|outboundpinholetimeout|disconnecttime|idledisconnecttime|disconnectdelay)"
        r"|(?:new)?protocol|errorcode|faultcode|code|major|minor|minimum|maximum|step|configid|width|height|depth|newenabled"
        r"|manage|newmanage|returnvalue|status"
    ),
    Place.LOOSE: re.compile("faultstring|errordescription"),
}
"""The names of elements, in lower case and without prefix, and the places that they are. Others are STRICT."""
_HEADER_PLACES: Final = {
    Place.URL: re.compile("location|al|callback|content-location|securelocation.upnp.org|referer"),
    Place.SECRET: re.compile(".*(?:cookie|auth|token|session|secret|key|credential|serial).*"),
    Place.NUMBER: re.compile(
        "content-length|cache-control|mx|timeout|seq|age|(?:bootid|nextbootid|configid|searchport).upnp.org"
    ),
    Place.LOOSE: re.compile(
        "host|st|nt|nts|man|ext|opt|content-type|server|user-agent|connection|transfer-encoding|accept.*|soapaction"
    ),
}
_DATE = re.compile(r"[ \t]*\w{3,9},? [\w -]{6,16}\d\d:\d\d:\d\d (?:GMT|\d{4})[ \t]*(?=\r|\n|\Z)", re.ASCII)
_DATES: Final = frozenset({"date", "expires", "last-modified"})
_MAX_NAMES: Final = 4096
"""Names of elements and headers whose place is remembered."""

_LT: Final = "(?:<|&(?:amp;)*lt;)"
_GT: Final = "(?:>|&(?:amp;)*gt;)"
_HEX: Final = "[0-9A-Fa-f]"
_LETTER: Final = r"[0-9A-Za-z\x80-\U0010ffff]"
_NAME: Final = "[A-Za-z_][A-Za-z0-9_.:-]{0,99}"
_ASCII: Final = (
    r"(?:&(?:amp;)*\#(?:0*(?:[0-9]{1,2}|1[01][0-9]|12[0-7])(?![0-9])|[xX]0*[0-7]?[0-9A-Fa-f](?![0-9A-Fa-f]));?)"
)
"""A reference to a character of ASCII."""
_WORD: Final = (
    r"(?:[A-Za-z0-9\x80-\U0010ffff]++|(?:%[89A-Fa-f][0-9A-Fa-f])++"
    rf"|(?!{_ASCII})&(?:(?:amp;)*\#(?:[0-9]{{1,7}}|[xX][0-9A-Fa-f]{{1,6}})"
    r"|(?!(?:amp|lt|gt|quot|apos);)[A-Za-z][A-Za-z0-9]{1,15});)++"
)
_TOKENS: Final = rf"""
  (?P<serial>{_LT}(?:[\w.-]{{1,40}}:)?[\w.-]{{0,40}}[Ss][Ee][Rr][Ii][Aa][Ll][\w.-]{{0,40}}(?:\s[^<>&]{{0,300}})?{_GT}
      (?:[^<&]|&(?!(?:amp;)*lt;)){{1,200}}(?={_LT}))
| (?P<tag>{_LT}/?{_NAME}(?=\s{{0,64}}(?:/?{_GT}|(?<=\s){_NAME}\s{{0,8}}=)))
| (?P<end>/?{_GT})
| (?P<user>//[^/\s@<>"']{{1,256}}@)
| (?P<quote>["'])
| (?P<attribute>{_NAME}(?=\s{{0,8}}=\s{{0,8}}["']))
| (?P<uuid>(?<!{_HEX}){_HEX}{{8}}(?:[-_]?{_HEX}{{4}}){{3}}[-_]?{_HEX}{{12}}(?!{_HEX}))
| (?P<mac>(?<!{_HEX})(?:
      {_HEX}{{1,2}}(?:(?P<gap>[:-]){_HEX}{{1,2}})(?:(?P=gap){_HEX}{{1,2}}){{4,30}}(?![:-]?{_HEX})
    | {_HEX}{{4}}\.{_HEX}{{4}}\.{_HEX}{{4}}(?!\.?{_HEX})))
| (?P<bare>(?:[A-Za-z]{{0,31}}[G-Zg-z])?{_HEX}{{12}}(?!{_LETTER}))
| (?P<v6>(?<!{_LETTER})(?![-_]){_HEX}{{0,4}}(?:(?P<colon>[:_-]){_HEX}{{0,4}})(?:(?P=colon){_HEX}{{0,4}}){{1,7}}
      (?:(?:\.[0-9]{{1,3}}){{3}})?(?!{_LETTER})(?:%(?:25)?[\w.-]{{1,32}}+(?!{_LETTER}))?)
| (?P<nibbles>{_HEX}(?:[.-]{_HEX}){{15,31}}(?!{_LETTER}))
| (?P<v4>[A-Za-z]{{0,32}}[0-9]{{1,4}}(?P<dot>[._-])[0-9]{{1,4}}(?P=dot)[0-9]{{1,4}}(?P=dot)[0-9]{{1,4}}(?![0-9]))
| (?P<word>{_WORD})
| (?P<escape>{_ASCII}|%[0-7][0-9A-Fa-f]|&(?:amp|lt|gt|quot|apos);)
"""
_TOKEN = re.compile(_TOKENS, re.VERBOSE | re.ASCII)
_HEADER: Final = r"""
  (?P<header>^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63}[ \t]{0,8}:(?=[ \t\r\n]|\Z)
  | (?i:location|usn|st|nt|nts|server|host|man|mx|ext|date|cache-control|sid|callback|al|(?:set-)?cookie
    |authorization)[ \t]{0,8}:(?!//)))
"""
"""A header; a blank after its name is left out where the name says that it is one."""
_HEAD_TOKEN = re.compile(f"{_HEADER} | {_TOKENS}", re.VERBOSE | re.ASCII | re.MULTILINE)
_QUAD = re.compile(r"([A-Za-z]*)([0-9]+)([._-])([0-9]+)[._-]([0-9]+)[._-]([0-9]+)")
_SERIAL_PARTS = re.compile(rf"(?s)({_LT}.*{_GT})(\s*)(.*?)(\s*)")
_PIECE = re.compile(_WORD, re.ASCII)

_REFERENCE = re.compile(r"&(?:amp;)*#(?:([0-9]{1,7})|[xX]([0-9A-Fa-f]{1,6}));?")
_PERCENT = re.compile(r"%(?:25)*([2-7][0-9A-Fa-f])")
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-@")
"""Characters that need no escape anywhere, and hide what is private where they have one."""
_CONTROLS = re.compile("[\x02-\x08\x0b\x0c\x0e-\x1f]")
_SPREAD = re.compile(r"(?:[^\0]\0{1,3}){4,}[^\0]?")
"""Text in UTF-16 or UTF-32 within other text."""
_PRODUCT = re.compile(
    rf"{_LT}(?:[\w.-]{{1,40}}:)?(manufacturer|modelName|modelNumber|deviceType|serviceType|serviceId)"
    rf"(?:\s[^<>&]{{0,200}})?{_GT}([^<&]{{1,200}}){_LT}",
    re.ASCII | re.IGNORECASE,
)
_SERIAL = re.compile(
    rf"{_LT}(?:[\w.-]{{1,40}}:)?[\w.-]{{0,40}}serial[\w.-]{{0,40}}(?:\s[^<>&]{{0,300}})?{_GT}\s*((?:[^<&]|&(?!(?:amp;)*lt;)){{1,200}}?)\s*{_LT}",
    re.ASCII | re.IGNORECASE,
)
_SERVER = re.compile(r"^(?:server|user-agent|x-user-agent)[ \t]*:([^\r\n]{1,400})", re.I | re.M)
_PRODUCT_TOKEN = re.compile(r"(?<![0-9A-Za-z\x80-\U0010ffff.-])([A-Za-z0-9]{2,24})/[0-9]")
_BUILT = re.compile("20[0-4][0-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
"""A date as versions have it."""
_DATAGRAM = re.compile(rb"\s{0,16}(?:HTTP/|NOTIFY\s|M-SEARCH\s)", re.IGNORECASE)
_HEAD_END = re.compile(r"\r?\n\r?\n")


class Scrubber:
    """Replaces private data in the messages of one recording, equal data by equal stand-ins.

    Before anything is replaced, :meth:`learn` or :meth:`learn_datagram` is called with every message.
    """

    def __init__(self) -> None:
        self._products: set[str] = set()
        self._serials: set[str] = set()
        self._stand_ins = StandIns(self._is_kept)
        self._kept: dict[str, bool] = {}
        self._places: dict[tuple[bool, str], Place] = {}
        self._names: dict[str, str] = {}

    def learn(self, message: bytes | str) -> None:
        """Look for what a device says of its maker, model and software, and for serial numbers."""
        text = message if isinstance(message, str) else decoded(message)[0]
        text = _prepared(text.replace("\0", ""))
        for found in _SERIAL.finditer(text):
            self._learn_serial(found[1])
        for found in _PRODUCT.finditer(text):
            self._learn_product(found[2], numbers=found[1].lower().startswith("model"))
        for found in _SERVER.finditer(text):
            self._learn_product(" ".join(_PRODUCT_TOKEN.findall(found[1])), numbers=False)
        self._kept.clear()
        self._names.clear()

    def learn_datagram(self, payload: bytes) -> None:
        """Look for the same in a datagram. Of one that is not SSDP nothing is left, and so nothing is learnt."""
        if _DATAGRAM.match(payload) is not None:
            self.learn(payload)

    def text(self, text: str) -> str:
        """Return a text of any kind, in which headers and elements may be, without private data."""
        self.learn(text)
        return self._replaced(text, Place.LOOSE, in_head=True)

    def url(self, url: str) -> str:
        """Return a URL without private data."""
        return self._replaced(url, Place.URL)

    def address(self, address: str) -> str:
        """Return what stands for an address; what is none becomes the address of nobody."""
        try:
            bare = address.partition("%")[0]
            return self._stand_ins.v6(IPv6Address(bare)) if ":" in bare else str(self._stand_ins.v4(IPv4Address(bare)))
        except ValueError:
            return "0.0.0.0"  # noqa: S104 - no binding

    def header(self, name: str, value: str) -> tuple[str, str]:
        """Return a header without private data; both are Latin-1, as in :meth:`content`."""
        place = self._place_of_header(name, value)
        text, encoded = decoded(value.encode("latin-1"))
        return self._name(name), encoded(self._replaced(text, place)).decode("latin-1")

    def datagram(self, payload: bytes) -> bytes:
        """Return a datagram without private data; one that is not SSDP is replaced by question marks."""
        if _DATAGRAM.match(payload) is None:
            return b"?" * len(payload)
        text, encoded = decoded(payload)
        end = _HEAD_END.search(text)
        cut = len(text) if end is None else end.end()
        head = self._replaced(text[:cut], Place.LOOSE, in_head=True, keeps_names=True)
        return encoded(head + self._replaced(text[cut:], Place.STRICT))

    def pcp_datagram(self, payload: bytes) -> bytes:
        """Return a datagram of PCP or NAT-PMP without private data."""
        return scrubbed(payload, self._stand_ins)

    def content(self, body: bytes) -> bytes:
        """Return the body of an HTTP message without private data."""
        return with_text(body, lambda text: self._replaced(text, Place.STRICT))

    def _replaced(self, text: str, place: Place, *, in_head: bool = False, keeps_names: bool = False) -> str:
        mark = text[:1] if text[:1] == "\ufeff" else ""
        text = _prepared(text[len(mark) :])
        token = _Pass(self, place, keeps_names=keeps_names).token
        pattern = _HEAD_TOKEN if in_head else _TOKEN
        parts = [mark]
        position = 0
        for spread in _SPREAD.finditer(text) if "\0" in text else ():
            parts += [pattern.sub(token, text[position : spread.start()]), self._spread(spread)]
            position = spread.end()
        return "".join([*parts, pattern.sub(token, text[position:])])

    def _spread(self, found: re.Match[str]) -> str:
        spread = found[0]
        dense = spread.replace("\0", "")
        gap = "\0" * (len(spread) - len(spread[1:].lstrip("\0")) - 1)
        scrubbed = _TOKEN.sub(_Pass(self, Place.STRICT).token, dense)
        return gap.join(scrubbed) + spread[len(spread.rstrip("\0")) :]

    def _learn_serial(self, serial: str) -> None:
        serial = _plain_serial(serial)
        if not serial:
            return
        standing = self._stand_ins.serial(serial)  # of each, so that they are numbered in their order
        self._serials.update(word.lower() for word in re.findall("[A-Za-z0-9]{4,}", serial))
        if len(serial) > 5 and _PIECE.fullmatch(serial) and not is_known(serial):
            self._stand_ins.let_word_be(serial, standing)

    def _learn_product(self, text: str, *, numbers: bool) -> None:
        words = (found[0] for found in _TOKEN.finditer(text) if found.lastgroup == "word")
        for word in words:
            if not (word.isascii() and word.isalnum() and 2 <= len(word) <= 24):
                continue
            if word.isdigit():
                is_plausible = numbers and 3 <= len(word) <= 5
            else:
                is_plausible = word.isalpha() or (len(word) <= 10 and re.search(r"\d{6}", word) is None)
            if is_plausible:
                self._products.add(word.lower())

    def _is_kept(self, word: str) -> bool:
        """Return whether a word is kept wherever it occurs."""
        kept = self._kept.get(word)
        if kept is None:
            kept = self._kept[word] = is_known(word) or (
                word.lower() in self._products and word.lower() not in self._serials
            )
        return kept

    def _place_of_element(self, name: str) -> Place:
        return self._place(_ELEMENT_PLACES, False, name.rpartition(":")[2].lower())

    def _place_of_header(self, name: str, value: str) -> Place:
        if name.lower() in _DATES:
            return Place.LOOSE if _DATE.match(value) else Place.STRICT
        return self._place(_HEADER_PLACES, True, name.lower())

    def _place(self, places: dict[Place, re.Pattern[str]], is_header: bool, name: str) -> Place:
        known = self._places.get((is_header, name))
        if known is None:
            known = next((place for place, names in places.items() if names.fullmatch(name)), Place.STRICT)
            if len(self._places) < _MAX_NAMES:
                self._places[is_header, name] = known
        return known

    def _name(self, name: str) -> str:
        """Return the name of an element, attribute or header, without words in it that have no known part."""
        written = self._names.get(name)
        if written is None:
            is_secret = Place.SECRET in (self._place_of_element(name), self._place_of_header(name, ""))
            if is_secret and sum(map(str.isdigit, name)) < 6:
                written = name  # it has to be known what was in it
            else:
                written = _PATTERNS.sub(_Pass(self, Place.STRICT, is_name=True).token, name)
            if len(self._names) < _MAX_NAMES:
                self._names[name] = written
        return written


class _Pass:
    """One way through a text: the place where it is, and the token there."""

    def __init__(self, scrubber: Scrubber, place: Place, *, is_name: bool = False, keeps_names: bool = False) -> None:
        self._scrubber = scrubber
        self._stand_ins = scrubber._stand_ins
        self._outside = place
        self._place = place
        self._element: Place | None = None
        self._open_quote = ""
        self._is_name = is_name
        self._keeps_names = keeps_names

    def token(self, found: re.Match[str]) -> str:
        """Return what takes the place of a token."""
        kind = found.lastgroup
        if kind == "word":
            return self._word(found)
        handle: Callable[[re.Match[str]], str] = getattr(self, f"_{kind}")
        return handle(found)

    def _escape(self, found: re.Match[str]) -> str:
        return found[0]

    def _header(self, found: re.Match[str]) -> str:
        name = found[0].rstrip(": \t")
        line_end = found.string.find("\n", found.end())
        value = found.string[found.end() : line_end if line_end >= 0 else None][:100]
        place = self._scrubber._place_of_header(name, value)
        self._place = Place.STRICT
        written = self._scrubber._name(name) if self._keeps_names else self._again(name)
        self._place = place
        return written + found[0][len(name) :]

    def _tag(self, found: re.Match[str]) -> str:
        lead, name = _split_tag(found[0])
        is_end = lead.endswith("/")
        self._element = self._outside if is_end else self._scrubber._place_of_element(name)
        self._place = Place.STRICT
        self._open_quote = ""
        return lead + self._scrubber._name(name)

    def _end(self, found: re.Match[str]) -> str:
        if self._element is not None:
            self._place = self._outside if found[0].startswith("/") else self._element
            self._element = None
        return found[0]

    def _quote(self, found: re.Match[str]) -> str:
        if self._open_quote in ("", found[0]):
            self._open_quote = "" if self._open_quote else found[0]
        return found[0]

    def _attribute(self, found: re.Match[str]) -> str:
        if self._element is not None and not self._open_quote:
            return self._scrubber._name(found[0])
        return self._again(found[0])

    def _again(self, text: str) -> str:
        """Return a text that was taken for something else, with its words replaced."""
        return _PATTERNS.sub(self.token, text)

    def _serial(self, found: re.Match[str]) -> str:
        tag, before, serial, after = _SERIAL_PARTS.fullmatch(found[0]).groups()  # type: ignore[union-attr]
        tag = _PATTERNS_AND_TAGS.sub(_Pass(self._scrubber, Place.STRICT).token, tag)
        self._element, self._place = None, self._outside
        plain = _plain_serial(serial)
        if not plain:
            return f"{tag}{before}{serial}{after}"
        return f"{tag}{before}{self._stand_ins.serial(plain)}{after}"

    def _user(self, found: re.Match[str]) -> str:
        return re.sub("[^/:@]", "x", found[0])

    def _uuid(self, found: re.Match[str]) -> str:
        return _with_digits(found[0], self._stand_ins.uuid(re.sub("[-_]", "", found[0])))

    def _mac(self, found: re.Match[str]) -> str:
        gap = found["gap"]
        if gap is None:
            return _with_digits(found[0], self._stand_ins.mac(found[0].replace(".", "")))
        groups = found[0].split(gap)
        if gap == ":" and len(groups) == 8 and any(len(group) < 2 for group in groups):
            return str(self._stand_ins.v6(IPv6Address(found[0])))
        digits = self._stand_ins.mac("".join(group.zfill(2) for group in groups))
        return gap.join(digits[start : start + 2] for start in range(0, len(digits), 2))

    def _bare(self, found: re.Match[str]) -> str:
        lead, digits = found[0][:-12], found[0][-12:]
        if digits.isdigit() or digits.isalpha():
            return self._word(found)
        return (self._again(lead) if lead else "") + _with_digits(digits, self._stand_ins.mac(digits))

    def _v6(self, found: re.Match[str]) -> str:
        gap = found["colon"]
        bare = found[0].partition("%")[0]
        try:
            address = IPv6Address(bare.replace(gap, ":"))
        except ValueError:
            return _V4_AND_WORDS.sub(self.token, found[0])
        if address.packed == bytes(16):
            return bare
        standing = str(self._stand_ins.v6(address))
        return standing if gap == ":" else standing.replace(":", gap)

    def _nibbles(self, found: re.Match[str]) -> str:
        return re.sub(_HEX, "0", found[0])

    def _v4(self, found: re.Match[str]) -> str:
        lead, *numbers = _QUAD.fullmatch(found[0]).group(1, 2, 4, 5, 6)  # type: ignore[union-attr]
        dot = found["dot"]
        for base in (10, 8):
            try:
                values = [int(number, base) for number in numbers]
            except ValueError:
                continue
            if max(values) < 256:
                address = str(self._stand_ins.v4(IPv4Address(bytes(values))))
                return (self._again(lead) if lead else "") + address.replace(".", dot)
        if not lead and self._place in (Place.LOOSE, Place.NUMBER):
            return _WORDS.sub(self.token, found[0])
        # No address: but its parts, replaced one by one, might be one.
        return (self._again(lead) if lead else "") + dot.join("0" for _ in numbers)

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        place = self._place
        scrubber = self._scrubber
        if word.isascii() and word.isalnum():
            plain, is_escaped = word, False
        else:
            plain, is_escaped = _without_escapes(word), "%" in word
        if place is Place.SECRET:
            return "x" if len(plain) == 1 and plain.isalpha() and plain.isascii() else self._standing(plain, is_escaped)
        if len(plain) == 1 and plain.isascii():
            return word
        if scrubber._is_kept(plain):
            return word
        if self._is_name and plain.isascii() and (len(plain) < 3 or has_known_part(plain)):
            return word
        if plain.isdigit() and plain.isascii() and (len(plain) < 6 or plain not in scrubber._serials):
            length = len(plain)
            if place is Place.NUMBER:
                is_kept = length <= 20
            elif place is Place.LOOSE:
                is_kept = length <= 5 or (_BUILT.fullmatch(plain) is not None and _before(found) == ".")
            elif place is Place.URL:
                is_kept = length <= 2 or (length <= 5 and _before(found) == ":")
            else:
                is_kept = False
            if is_kept:
                return word
        return self._standing(plain, is_escaped)

    def _standing(self, plain: str, is_escaped: bool) -> str:
        if len(plain) == 1 and plain.isascii():
            return "0"
        standing = self._stand_ins.word(plain)
        return quote(standing) if is_escaped else standing


def _before(found: re.Match[str]) -> str:
    """Return the character before a token."""
    return found.string[found.start() - 1 : found.start()]


def _pattern_of(*kinds: str) -> re.Pattern[str]:
    """Return a pattern of some kinds of tokens."""
    lines = re.split(r"\n\| ", _TOKENS.strip())
    return re.compile(
        "|".join(line for line in lines if line.startswith(tuple(f"(?P<{kind}>" for kind in kinds))),
        re.VERBOSE | re.ASCII,
    )


_PATTERNS = _pattern_of("user", "uuid", "mac", "bare", "v6", "nibbles", "v4", "escape", "word")
_PATTERNS_AND_TAGS = _pattern_of(
    "tag", "end", "user", "quote", "attribute", "uuid", "mac", "bare", "v6", "nibbles", "v4", "escape", "word"
)
_V4_AND_WORDS = _pattern_of("v4", "escape", "word")
_WORDS = _pattern_of("word")


def _split_tag(tag: str) -> tuple[str, str]:
    start = tag.rfind(";") + 1 or 1
    start += tag[start : start + 1] == "/"
    return tag[:start], tag[start:]


def _with_digits(pattern: str, digits: str) -> str:
    """Return a text with its hexadecimal digits replaced by others, one by one."""
    left = iter(digits)
    return re.sub(_HEX, lambda _: next(left), pattern)


def _without_escapes(word: str) -> str:
    if "&" in word:
        word = html.unescape(re.sub("&(?:amp;)+", "&", word))
    if "%" in word:
        try:
            word = unquote(word, errors="strict")
        except UnicodeDecodeError:
            word = unquote(word, "latin-1")
    return word


def _plain_serial(text: str) -> str:
    """Return a serial number as it is known, whether it is learnt or replaced."""
    return _without_escapes(text.replace("\0", "")).strip()


def _prepared(text: str) -> str:
    """Return a text as it is looked through, whether to learn from it or to replace what is in it."""
    return _CONTROLS.sub("\x01", _unescaped(text))


def _unescaped(text: str) -> str:
    """Return a text without the escapes that nothing needs."""
    for _ in range(2):
        if "%" in text:
            text = _PERCENT.sub(lambda found: _if_plain(int(found[1], 16), found[0]), text)
        if "&" in text:
            text = _REFERENCE.sub(
                lambda found: _if_plain(int(found[1]) if found[1] else int(found[2], 16), found[0]), text
            )
    return text


def _if_plain(code: int, escape: str) -> str:
    return chr(code) if code < 128 and chr(code) in _PLAIN else escape
