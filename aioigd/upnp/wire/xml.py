"""XML as routers write it: parsed safely, repaired where that is harmless.

libxml2 never reads what a device wrote, only what this module makes of it: start tags, end tags and text, in UTF-8.
Everything else (declarations, attributes, namespaces, comments, CDATA sections, stray ``&`` and ``<``) has no meaning
in UPnP; it is dropped or turned into text before. A document type declaration is refused. So neither an encoding nor
a kind of markup can hide anything from the checks made here.

libxml2 caches element names and short runs of blanks until the process ends, so a device that sends new ones could
fill the memory. Therefore every element in the resulting tree is called ``e`` and carries its name, in lower case and
without a prefix, in its attribute ``n``; and no text begins with a blank. The functions of this module read that name.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from encodings.aliases import aliases
from functools import lru_cache
from itertools import islice
from typing import Final, cast

from lxml import etree

from ...errors import InvalidResponseError

__all__ = [
    "MAX_DOCUMENT",
    "MAX_MARKUP",
    "canonical",
    "element_at",
    "escape",
    "first_text",
    "first_texts",
    "has_root_end_tag",
    "is_finished",
    "iter_named",
    "local_name",
    "names",
    "parse",
    "printable_line",
    "text_of",
]

MAX_DOCUMENT: Final = 256 * 1024
"""Bytes. 16 KiB was too little for the descriptions of ZTE and Sagemcom routers; miniupnpc sets no limit."""
MAX_MARKUP: Final = 20_000
"""Characters ``<`` and ``&`` in a document: bounds tree and time, whatever its shape. Real ones have some 500."""

_MAX_CHILDREN: Final = 256
"""Children read of one element. Real ones have fewer than 20."""

_CONTROLS: Final = bytes(set(range(32)) - {*b"\t\n\r"})
_DECLARED_ENCODING = re.compile(
    rb"""[^<]{0,64}<\?xml\b[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([\w.:-]{1,40})["']""", re.IGNORECASE
)
_ALLOWED_ENCODINGS: Final = frozenset(
    {"ascii", "utf_8", "utf_8_sig", "latin_1", "iso8859_2", "iso8859_15", "cp1250", "cp1251", "cp1252", "koi8_r"}
    | {"gb2312", "gbk", "gb18030", "big5", "euc_jp", "euc_kr", "shift_jis"}
)
"""Encodings that routers declare. UTF-7 is not here: it hides markup from every scan for ASCII characters."""
_NO_ENCODINGS_OF_BYTES: Final = frozenset({"utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be"})
"""Encodings that a document cannot be in, as its declaration was readable as ASCII."""
_KNOWN_ENCODINGS: Final = frozenset(aliases.values())

# Of these three no alternative looks beyond the end of its own match, so all of it takes linear time.
_NO_TAG = re.compile(
    r"""<(?!/?[^\W\d])
        (?: (?P<dropped>!--.*?(?:-->|\Z) | \?[^>]*+>?) [ \t\r\n]*+
          | !\[CDATA\[ (?P<text>.*?) (?:\]\]>|\Z)
          | (?P<doctype>!\s*+(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION))
        )?
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""What begins with ``<`` and is neither a start tag nor an end tag."""
_REFERENCE = re.compile(
    r"""& (?! (?:amp|lt|gt|quot|apos); )
        (?: \#(?P<decimal>[0-9]{1,7});
          | \#[xX](?P<hexadecimal>[0-9a-fA-F]{1,6});
          | (?P<capitals>(?i:amp|lt|gt|quot|apos);)
        )?
    """,
    re.VERBOSE,
)
"""A ``&``, unless it is an entity of XML as it should be."""
_BOUNDARY: Final = "\x01"
"""Stands where something was no tag, until the tags have been read: one that is not closed ends there."""
_TAG = re.compile(rf"<(/?[^\W\d][\w.:-]{{0,80}})([^<>{_BOUNDARY}]*+)>?")
"""A tag in two parts: slash and name, and all the rest."""
_NO_TEXT: Final = " \t\r\n" + _BOUNDARY
"""What no text begins with."""
_UNFINISHED: Final = "?"
"""The name of an element that is appended to each document: it becomes a child of whatever tag is still open."""

_HEAD: Final = 4096
"""Bytes at the beginning of a document in which the start tag of the root is searched."""
_TAIL: Final = 1024
"""Bytes at the end of a document in which the end tag of the root is searched."""
_ROOT_START = re.compile(rb"(?:[^<]++|<!--.*?(?:-->|\Z)|<(?!!--|[A-Za-z_]))*+<([A-Za-z_][\w.:-]{0,80})", re.DOTALL)
"""The beginning of a document with the name of its root."""
_END_TAG = re.compile(rb"</([A-Za-z_][\w.:-]{0,80})\s*+>")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")

_PARSER: Final = etree.XMLParser(
    encoding="utf-8",
    recover=True,  # tags that do not match
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    huge_tree=False,
    collect_ids=False,  # there are none
)

_NAMES: Final = etree.XPath("descendant-or-self::e/@n", smart_strings=False)


def parse(document: bytes) -> etree._Element:
    """Return the root element of a document, also of a malformed one.

    Repaired are: an unknown or wrong encoding, blanks or other text around the root, control characters, raw
    ``&`` and ``<``, prefixes and attributes of any kind, tags that do not match. Raises InvalidResponseError for
    what is no XML at all, is over :data:`MAX_DOCUMENT` or :data:`MAX_MARKUP`, or has a document type declaration.
    """
    if len(document) > MAX_DOCUMENT:
        raise InvalidResponseError(f"a document of {len(document)} bytes; at most {MAX_DOCUMENT} are read")
    root: etree._Element = etree.fromstring(f'{canonical(document)}<e n="{_UNFINISHED}"/>'.encode(), _PARSER)
    _mark_unfinished(root)
    return root


def canonical(document: bytes) -> str:
    """Return what libxml2 gets to read of a document: ``<e n="…">``, ``<e n="…"/>``, ``</e>`` and escaped text.

    Text stands only behind the first of these, and does not begin with a blank. End tags may be missing at the end.
    Raises InvalidResponseError as :func:`parse` does.
    """
    if len(document) > MAX_DOCUMENT:
        raise InvalidResponseError(f"a document of {len(document)} bytes; at most {MAX_DOCUMENT} are read")
    text = _decode(document)
    markup = text.count("<") + text.count("&")
    if markup > MAX_MARKUP:
        raise InvalidResponseError(f"a document with {markup} tags and references; at most {MAX_MARKUP} are read")
    # What follows the last ">" is dropped: it is garbage, or half of something.
    text = _NO_TAG.sub(_replace_no_tag, text[: text.rfind(">") + 1])
    # References before blanks, as what stood before the blanks may be dropped.
    pieces = iter(_TAG.split(_REFERENCE.sub(_replace_reference, text))[1:])
    parts: list[str] = []
    for name, rest, text in zip(pieces, pieces, pieces, strict=True):
        # Text behind an element goes with its end tag, as nothing in UPnP has text beside elements.
        if name[0] == "/":
            if parts:
                parts.append("</e>")
            continue
        if ":" in name:
            name = name.rpartition(":")[2]
        if rest.endswith("/"):
            parts.append(f'<e n="{name.lower()}"/>')
        else:
            parts.append(f'<e n="{name.lower()}">{text.lstrip(_NO_TEXT)}')
    if not parts:
        raise InvalidResponseError("what should be XML is not")
    return "".join(parts).replace(_BOUNDARY, "").replace("]]>", "]]&gt;")


def has_root_end_tag(document: bytes | bytearray) -> bool:
    """Return whether the end tag of the root has arrived, so that nothing is missing.

    HTTP framing is often wrong (lengths that are too long or too short, connections that stay open); the end of the
    document is not. Only both ends of the document are searched, so it may be called often.
    """
    return _has_end(bytes(document[:_HEAD]), bytes(document[-_TAIL:]))


@lru_cache(maxsize=8)
def _has_end(head: bytes, tail: bytes) -> bool:
    # Remembered, as the replies to a batch are mostly identical.
    # Without control characters, which are the NULs of UTF-16, among others.
    start = _ROOT_START.match(head.translate(None, _CONTROLS))
    if start is None:
        return False
    root = start[1].rpartition(b":")[2].lower()
    for name in reversed(_END_TAG.findall(tail.translate(None, _CONTROLS))):
        if name.rpartition(b":")[2].lower() == root:
            return True
    return False


def is_finished(element: etree._Element) -> bool:
    """Return whether an element was closed; otherwise the document was cut off in it."""
    return element.get("unfinished") is None


def names(element: etree._Element) -> list[str]:
    """Return the local names of the element itself and its descendants, in document order.

    With 20,000 elements this takes a third of the time that it takes to look at each.
    """
    return cast("list[str]", _NAMES(element))


def element_at(element: etree._Element, index: int) -> etree._Element:
    """Return the element itself or its descendant to which an index of :func:`names` belongs."""
    return next(islice(element.iter(), index, None))


def iter_named(element: etree._Element, name: str) -> Iterator[etree._Element]:
    """Yield the element itself and its descendants that have this local name, in document order."""
    if name in names(element):
        for candidate in element.iter():
            if candidate.get("n") == name:
                yield candidate


def local_name(element: etree._Element) -> str:
    """Return an element's name in lower case, without namespace or prefix."""
    return element.get("n", "")


def text_of(element: etree._Element) -> str:
    """Return the text directly in an element, without the white space around it."""
    return (element.text or "").strip()


def first_text(element: etree._Element, name: str) -> str:
    """Return the text of the first child with this local name, or an empty string."""
    for child in islice(element, _MAX_CHILDREN):
        if child.get("n") == name:
            return text_of(child)
    return ""


def first_texts(element: etree._Element, *names: str) -> list[str]:
    """Return what :func:`first_text` returns for each of some names, in one pass."""
    found: dict[str, str] = {}
    for child in islice(element, _MAX_CHILDREN):
        name = child.get("n", "")
        if name in names and name not in found:
            found[name] = text_of(child)
    return [found.get(name, "") for name in names]


def escape(text: str) -> str:
    """Escape a value for element content: only ``& < >``, because FritzBox decodes no ``&quot;``."""
    if "&" in text or "<" in text or ">" in text:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text


def printable_line(text: str, longest: int) -> str:
    """Return a text from a device as one line without control characters, fit for display."""
    return _UNPRINTABLE.sub(" ", text[:longest]).strip()


def _decode(document: bytes) -> str:
    if document.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        whole_units = document[: len(document) & ~1]
        document = whole_units.decode("utf-16", "ignore").encode()
        encoding = "utf_8"
    else:
        encoding = _encoding(document)
    document = document.translate(None, _CONTROLS)
    try:
        text = document.decode(encoding)
    except UnicodeDecodeError:
        text = document.decode("utf-8", "replace")  # the tags are ASCII anyway
    return text.replace("\ufffe", "").replace("\uffff", "")


def _encoding(document: bytes) -> str:
    declared = _DECLARED_ENCODING.match(document)
    if declared is None:
        return "utf_8"
    # Not by codecs.lookup: it searches the disk for a module, and caches every label that it did not find.
    label = declared[1].decode("ascii").lower().replace("-", "_")
    encoding = aliases.get(label, label)
    if encoding in _ALLOWED_ENCODINGS:
        return encoding
    if encoding in _KNOWN_ENCODINGS and encoding not in _NO_ENCODINGS_OF_BYTES:
        raise InvalidResponseError(f"a document in the encoding {label!r} is refused")
    return "utf_8"  # an unknown label


def _replace_no_tag(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "dropped":
        return _BOUNDARY
    if kind == "text":
        return _BOUNDARY + escape(match["text"])
    if kind == "doctype":
        raise InvalidResponseError("a document with a document type declaration is refused")
    return _BOUNDARY + "&lt;"


def _replace_reference(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind is None:
        return "&amp;"
    if kind == "capitals":
        return match[0].lower()
    number = int(match["decimal"]) if kind == "decimal" else int(match["hexadecimal"], 16)
    return escape(chr(number)) if _is_character(number) else ""


def _is_character(number: int) -> bool:
    """Return whether XML 1.0 allows a character (section 2.2)."""
    return (
        number in (9, 10, 13) or 0x20 <= number <= 0xD7FF or 0xE000 <= number <= 0xFFFD or 0x10000 <= number <= 0x10FFFF
    )


def _mark_unfinished(root: etree._Element) -> None:
    last = root
    while len(last):
        last = last[-1]
    if local_name(last) == _UNFINISHED:
        for element in last.iterancestors():
            element.set("unfinished", "")
