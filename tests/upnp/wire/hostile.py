"""Documents that a device would send to hurt: each family takes a size in bytes and fills it with one kind of harm."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

Family = Callable[[int], bytes]

SERVICE: Final = (
    b"<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
    b"<controlURL>ctl/../../x?y#z</controlURL><eventSubURL>e</eventSubURL></service>"
)
_MOST_MARKUP: Final = 19_900


def _repeat(unit: bytes, head: bytes = b"<root>", tail: bytes = b"</root>") -> Family:
    """Fill a document with copies of one unit, as many as size and the cap on markup allow."""
    per_unit = unit.count(b"<") + unit.count(b"&")

    def build(size: int) -> bytes:
        copies = max(0, size - len(head) - len(tail)) // len(unit)
        if per_unit:
            copies = min(copies, _MOST_MARKUP // per_unit)
        return head + unit * copies + tail

    return build


def _count(unit: bytes, head: bytes = b"<root>", tail: bytes = b"</root>") -> Family:
    """Fill a document with units in which ``%d`` makes each different."""
    per_unit = unit.count(b"<") + unit.count(b"&")

    def build(size: int) -> bytes:
        copies = max(0, size - len(head) - len(tail)) // (len(unit) + 4)
        if per_unit:
            copies = min(copies, _MOST_MARKUP // per_unit)
        return head + b"".join(unit.replace(b"%d", b"%d" % number) for number in range(copies)) + tail

    return build


def _declared(encoding: bytes, unit: bytes) -> Family:
    return _repeat(unit, b'<?xml version="1.0" encoding="%s"?><root>' % encoding)


FAMILIES: Final[dict[str, Family]] = {
    "stray ampersands": _repeat(b"&"),
    "ampersands up to the cap": _repeat(b"&xxxxxxxxxxx"),
    "character references": _repeat(b"&#x1;xxxxxxx"),
    "good character references": _repeat(b"&#x41;xxxxxx"),
    "stray less-than signs": _repeat(b"< xxxxxxxxxx"),
    "less-than signs only": _repeat(b"<"),
    "greater-than signs": _repeat(b">"),
    "attributes": _count(b" a%d=''", b"<root", b"></root>"),
    "attributes with greater-than signs": _count(b' a%d=">"', b"<root", b"></root>"),
    "attributes without an end": _count(b" a%d=''", b"<root", b""),
    "namespaces": _count(b' xmlns:a%d="u"', b"<root", b"></root>"),
    "nested namespaces": _count(b'<a xmlns:b%d="u%d">', b"", b""),
    "one long namespace for all": _repeat(b"<service/>", b'<root xmlns="' + b"u>" * 2000 + b'">'),
    "many quotes": _repeat(b'<a b="', b"<root>", b""),
    "one long tag": _repeat(b"a", b"<", b"></a>"),
    "one long end tag": _repeat(b"a", b"<a></", b">"),
    "empty elements": _repeat(b"<service/>"),
    "short elements with tails": _repeat(b"<a/>xxxxxxxxx"),
    "elements with texts": _repeat(b"<a>xxxxxxxxxxxxxxxx</a>yyyy"),
    "new names": _count(b"<n%d/>"),
    "long new names": _count(b"<n%dxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/>"),
    "prefixes that nobody declared": _count(b"<p%d:b p%d:c='1'/>"),
    "nesting": _repeat(b"<e>", b"", b""),
    "nesting, closed": lambda size: b"<e>" * min(9_900, size // 7) + b"</e>" * min(9_900, size // 7),
    "end tags only": _repeat(b"</b>"),
    "tags that do not match": _repeat(b"<a></b>"),
    "broken tags": _repeat(b"<\x01a="),
    "blanks": _repeat(b" "),
    "blanks between tags": _repeat(b"<a>" + b" \t\n" * 15 + b"</a>" + b" " * 10),
    "blanks before nothing": _repeat(b" ", b"", b"x"),
    "blanks in an end tag": _repeat(b"</service "),
    "one text": _repeat(b"x"),
    "NULs": _repeat(b"\0"),
    "every other a NUL": _repeat(b"x\0"),
    "noncharacters": _repeat("x\uffff".encode()),
    "no UTF-8": _repeat(b"\xff"),
    "wide characters": _repeat("x\U0001f600".encode()),
    "CDATA": _repeat(b"<![CDATA[x]]>"),
    "open CDATA": _repeat(b"<![CDATA["),
    "blank CDATA": _repeat(b"<![CDATA[                    ]]>"),
    "almost blank CDATA": _repeat(b"<![CDATA[ ", b"<root>", b""),
    "comments": _repeat(b"<!--x-->"),
    "open comments": _repeat(b"<!--"),
    "processing instructions": _repeat(b"<?x y?>"),
    "open processing instructions": _repeat(b"<?x "),
    "declarations": _repeat(b'<?xml version="1.0"?>', b""),
    "doctypes": _repeat(b"<!DOCTYPE x>", b""),
    "half a doctype": _repeat(b"<! DOCTYP"),
    "declared as CP1252": _declared(b"cp1252", b"\x81"),
    "declared as GBK": _declared(b"gbk", b"\xff"),
    "declared as GB 18030": _declared(b"gb18030", b"\x81\x30\x81"),
    "declared as Shift-JIS": _declared(b"shift_jis", b"\x81\xff"),
    "declared as KOI8-R": _declared(b"koi8-r", b"\x81\xff"),
    "declared as what nobody knows": _declared(b"martian", b"\x81\xff"),
    "UTF-16 of half characters": _repeat(b"\x00\xd8", b"\xff\xfe", b""),
    "UTF-16 of elements": lambda size: "<root>".encode("utf-16") + "<a/>".encode("utf-16-le") * (size // 8 - 8),
    "encodings": _repeat(b" encoding=", b"<?xml", b"?><root/>"),
    "services": _repeat(SERVICE),
    "services without a type": _repeat(b"<service><x/></service>"),
    "services in services": _repeat(SERVICE.removesuffix(b"</service>")),
    "relative URLs": lambda size: (
        b"<root><URLBase>http://192.0.2.1/%s</URLBase>" % (b"a/" * 240)
        + SERVICE.replace(b"ctl/../..", b"../" * 165).replace(b">e<", b">" + b"../" * 170 + b"<")
        * ((size - 500) // 1200)
        + b"</root>"
    ),
    "one long URL": lambda size: b"<root>" + SERVICE.replace(b"ctl/", b"../" * ((size - 300) // 3)) + b"</root>",
    "devices": _repeat(b"<device><deviceType>x</deviceType></device>"),
    "values of an answer": _count(b"<NewX%d>1</NewX%d>", b"<AddPortMappingResponse>", b"</AddPortMappingResponse>"),
    "answers": _repeat(b"<AddPortMappingResponse/>"),
    "codes": _repeat(b"<errorCode>1</errorCode>", b"<e><fault>", b"</fault></e>"),
    "words": _repeat(b"<errorDescription>Action  Failed</errorDescription>", b"<e><fault>", b"</fault></e>"),
    "faults": _repeat(b"<fault>"),
}
"""The name says what there is too much of."""

_PIECES: Final = (
    *(b"<root>", b"</root>", b"<device>", b"</device>", b"<service>", b"</service>", b"<controlURL>", b"</controlURL>"),
    *(b"<s:Envelope>", b"</s:Envelope>", b"<s:Fault>", b"<errorCode>", b"725", b"</errorCode>"),
    *(b"<serviceType>", b"urn:schemas-upnp-org:service:WANIPConnection:1", b"</serviceType>"),
    *(b"<AddPortMappingResponse>", b"<URLBase>", b"</URLBase>"),
    *(b"http://", b"//[", b"192.0.2.9", b":99999", b"/../", b"?", b"#", b"%", b"@", b"file:///etc/passwd"),
    *(b"<", b">", b"&", b"&#0;", b"&#x110000;", b"&amp;", b"&AMP;", b"&nbsp;"),
    *(b"'", b'"', b"=", b"/>", b"</", b"<!", b"<?"),
    *(b"<![CDATA[", b"]]>", b"<!--", b"-->", b'<?xml version="1.0" encoding="utf-16"?>', b"<?xml encoding='gbk'?>"),
    *(b"<!DOCTYPE x [", b'<!ENTITY a "b">', b"]>", b"+ADw-", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"),
    *(b"\0", b"\x1b", b"\x4c\x6f\xa7\x94", b"\xed\xa0\x80", "ü".encode(), "\u2028\ufffe\U0001f600".encode()),
    *(b" xmlns='u'", b" xmlns:u='v'", b" a='b'", b"\n", b" ", b"\t"),
)  # fmt: skip


def random_document(rng: random.Random) -> bytes:
    """Return some hostile document: a mixture of pieces and of small families, or noise."""
    match rng.randrange(8):
        case 0:
            return rng.randbytes(rng.randrange(2000))
        case 1:
            document = bytearray(FAMILIES[rng.choice(tuple(FAMILIES))](rng.randrange(64, 20_000)))
            for _ in range(rng.randrange(8)):
                document[rng.randrange(len(document))] = rng.randrange(256)
            return bytes(document[: rng.randrange(1, len(document) + 1)])
        case 2:
            return b"<%x>%s</%x>" % (rng.getrandbits(64), rng.choice(_PIECES), rng.getrandbits(64))
        case _:
            pieces = rng.choices(_PIECES, k=rng.randrange(1, 60))
            return b"".join(piece * rng.choice((1, 1, 1, 1, 40)) for piece in pieces)
