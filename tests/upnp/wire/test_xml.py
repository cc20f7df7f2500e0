"""xml.parse mends what is harmless, refuses what is not, and tells both apart whatever the encoding."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from aioigd.errors import InvalidResponseError
from aioigd.upnp.wire import xml


def value(document: bytes | str, name: str = "friendlyname") -> str:
    """Return the text of the first element of a name, which is how everybody reads documents."""
    root = xml.parse(document.encode() if isinstance(document, str) else document)
    return xml.text_of(next(xml.iter_named(root, name)))


class TestSloppyDocuments:
    @pytest.mark.parametrize(
        "document",
        [
            "<root><friendlyName>Router</friendlyName></root>",
            '<?xml version="1.0"?><root xmlns="urn:x:device-1-0"><friendlyName>Router</friendlyName></root>',
            '<root xmlns="urn:dslforum-org:device-1-0"><friendlyName>Router</friendlyName></root>',
            '<x:root xmlns:x="urn:x"><x:friendlyName>Router</x:friendlyName></x:root>',
            "<x:root><y:friendlyName>Router</z:friendlyName></x:root>",
            '<root a="1" a="2" b=c d e=\'"\'><friendlyName lang=en>Router</friendlyName></root>',
            "<ROOT><FRIENDLYNAME>Router</FRIENDLYNAME></ROOT>",
            "<root><friendlyname>Router</FriendlyName></ROOT>",
            "\r\n\r\n <?xml version='1.0'?>\n<root><friendlyName>\r\n\t Router  </friendlyName></root>",
            "\ufeff<?xml version='1.0'?><root><friendlyName>Router</friendlyName></root>",
            "<root><friendlyName><![CDATA[Router]]></friendlyName></root>",
            "<root><friendlyName>Rou<!-- <friendlyName>no</friendlyName> -->ter</friendlyName></root>",
            "<root><friendlyName><!-- c -->Rou<![CDATA[te]]>r</friendlyName></root>",
            "<root><friendlyName>Router</friendlyName></root>\0\0\0",
            "<root><friendlyName>Router</friendlyName></root>garbage & more < of it",
            "<root><friendlyName>Router</friendlyName></root><script>garbage()</script>",
            "garbage<root><friendlyName>Router</friendlyName></root>",
            "<?xml version='1.0'?><?xml version='1.0'?><root><friendlyName>Router</friendlyName></root>",
            "<?xml version='1.0'><root><friendlyName>Router</friendlyName></root>",
            "<?xml-stylesheet href='x'?><!-- <a> --><root><friendlyName>Router</friendlyName></root>",
            "<root><friendlyName>\x01Rou\x08\x00ter\x1b</friendlyName></root>",
            "<root><friendlyName>Rou&#0;te&#xFFFF;r&#55296;</friendlyName></root>",
            "<root><friendlyName>\uffffRouter\ufffe</friendlyName></root>",
            "<root><friendlyName>Router<br></friendlyName></root>",
            "<root><friendlyName>Router</friendlyName><modelName>X",
            "<root><friendlyName\n>Router</friendlyName\n></root>",
            "<root <friendlyName>Router</friendlyName></root>",
            "</a><root><friendlyName>Router</friendlyName></root>",
        ],
    )
    def test_a_value_is_read_from_any_of_them(self, document: str) -> None:
        assert value(document) == "Router"

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("AT&T", "AT&T"),
            ("AT&amp;T", "AT&T"),
            ("AT&AMP;T", "AT&T"),
            ("<![CDATA[AT&T]]>", "AT&T"),
            ("<![CDATA[a&amp;b]]>", "a&amp;b"),
            ("<![CDATA[<b>1</b>]]>", "<b>1</b>"),
            ("a &nbsp; b", "a &nbsp; b"),
            ("&#x41;&#66;&#X43;", "ABC"),
            ("a &# b &#; &#x; &;", "a &# b &#; &#x; &;"),
            ("1 < 2 > 0", "1 < 2 > 0"),
            ("I <3 you", "I <3 you"),
            ("a <! b", "a <! b"),
            ("]]>", "]]>"),
            ("&#x110000;&#9999999;!", "!"),
            ("&#0; \n x&#32;&#x20; y&#13;z", "x   y\nz"),
            ("x<![CDATA[ ]]>y", "x y"),
            ("x<!-- c --> y", "xy"),
            ("Gerät", "Gerät"),
            ("\U0001f600", "\U0001f600"),
        ],
    )
    def test_markup_that_is_meant_as_text_is_text(self, written: str, meant: str) -> None:
        assert value(f"<root><friendlyName>{written}</friendlyName></root>") == meant

    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            ("ISO-8859-1", "latin-1"),
            ("iso8859-15", "iso8859-15"),
            ("windows-1252", "cp1252"),
            ("UTF-8", "utf-8"),
            ("utf8", "utf-8"),
            ("UTF-16", "utf-8"),
            ("utf-32", "utf-8"),
            ("martian", "utf-8"),
            ("x" * 60, "utf-8"),
            ("", "utf-8"),
        ],
    )
    def test_the_declared_encoding_counts_unless_it_cannot_be(self, label: str, codec: str) -> None:
        document = f'<?xml version="1.0" encoding="{label}"?><root><friendlyName>Gerät</friendlyName></root>'
        assert value(document.encode(codec)) == "Gerät"

    def test_gbk_is_read_although_its_bytes_look_like_markup(self) -> None:
        document = '<?xml version="1.0" encoding="gb2312"?><root><friendlyName>路由器</friendlyName></root>'
        assert value(document.encode("gb2312")) == "路由器"

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf_16_is_read_with_and_without_a_byte_order_mark(self, codec: str) -> None:
        document = '<?xml version="1.0" encoding="utf-16"?><root><friendlyName>Router</friendlyName></root>'
        assert value(document.encode(codec)) == "Router"

    @pytest.mark.parametrize("end", [-1, -2, -3])
    def test_utf_16_that_was_cut_in_the_middle_of_a_character_is_read(self, end: int) -> None:
        assert value("<root><friendlyName>Router</friendlyName></root>".encode("utf-16")[:end]) == "Router"

    @pytest.mark.parametrize("label", [b"utf-8", b"gbk", b"cp1252", b"ascii"])
    def test_bytes_that_are_not_in_the_declared_encoding_cost_only_themselves(self, label: bytes) -> None:
        document = (
            b'<?xml encoding="%s"?><root><modelName>\x81\xff</modelName><friendlyName>Router</friendlyName></root>'
        )
        assert value(document % label) == "Router"

    def test_of_two_children_with_one_name_the_first_counts(self) -> None:
        root = xml.parse(b"<root><a>1</a><a>2</a></root>")
        assert xml.first_text(root, "a") == "1"
        assert xml.first_text(root, "b") == ""

    def test_named_elements_come_in_document_order_and_include_the_root(self) -> None:
        root = xml.parse(b"<a>1<b><a>2</a></b><A>3</A></a>")
        assert [xml.text_of(element) for element in xml.iter_named(root, "a")] == ["1", "2", "3"]

    def test_a_whole_document_is_finished_in_all_its_parts(self) -> None:
        assert all(map(xml.is_finished, xml.parse(b"<a><b><c/></b></a>garbage").iter()))

    def test_what_stood_open_at_the_end_is_unfinished(self) -> None:
        root = xml.parse(b"<a><b><c>1</c></b><d><e>2</e><f>3")
        assert [xml.local_name(element) for element in root.iter() if xml.is_finished(element)] == ["b", "c", "e", "?"]

    def test_half_a_value_is_no_value(self) -> None:
        root = xml.parse(b"<a><errorCode>72")
        assert xml.first_text(root, "errorcode") == ""


class TestRefusals:
    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"   ",
            b"\0",
            b"not found",
            b"404 <",
            b"<",
            b"<>",
            b"< a>",
            b"</a>",
            b"<!-- <a/> -->",
            b"<?xml version='1.0'?>",
        ],
    )
    def test_what_has_no_element_is_no_xml(self, document: bytes) -> None:
        with pytest.raises(InvalidResponseError):
            xml.parse(document)

    def test_a_document_may_be_as_long_as_the_limit_and_not_a_byte_longer(self) -> None:
        document = b"<a>" + b"x" * (xml.MAX_DOCUMENT - 7) + b"</a>"
        assert len(xml.text_of(xml.parse(document))) == xml.MAX_DOCUMENT - 7
        with pytest.raises(InvalidResponseError, match="262145 bytes"):
            xml.parse(document + b" ")

    def test_a_document_may_have_as_much_markup_as_the_limit_and_no_more(self) -> None:
        tags = b"<b/>" * (xml.MAX_MARKUP - 2)
        assert len(xml.parse(b"<a>" + tags + b"</a>")) == xml.MAX_MARKUP - 2
        for more in (b"<b/>", b"&", b"&amp;"):
            with pytest.raises(InvalidResponseError, match="20001 tags"):
                xml.parse(b"<a>" + tags + more + b"</a>")

    @pytest.mark.parametrize(
        "markup",
        [
            '<!DOCTYPE root [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;&a;">]>',
            '<!DOCTYPE root SYSTEM "http://192.0.2.9/x.dtd">',
            '<!DOCTYPE root [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
            "<!doctype html>",
            "<! DOCTYPE root>",
            "<!\tDocType\nroot>",
            "<!DOCTYPE",
            '<!ENTITY a "b">',
            "<!ELEMENT root ANY>",
            "<!ATTLIST root a CDATA #IMPLIED>",
            '<!NOTATION n SYSTEM "x">',
            "<!DOC\x01TYPE root>",
            "<\x00!DOCTYPE root>",
        ],
    )
    @pytest.mark.parametrize("frame", ["{}<root>&a;</root>", "<root>{}</root>", "<?xml version='1.0'?>x{}<root/>"])
    @pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
    def test_a_document_type_is_refused_in_any_place_and_encoding(self, markup: str, frame: str, codec: str) -> None:
        with pytest.raises(InvalidResponseError):
            xml.parse(frame.format(markup).encode(codec))

    @pytest.mark.parametrize(
        "label",
        [
            "utf-7",
            "UTF7",
            "unicode-1-1-utf-7",
            "cp037",
            "EBCDIC-CP-US",
            "cp500",
            "iso2022_jp",
            "hz",
            "rot13",
            "zlib",
            "cp864",
        ],
    )
    def test_an_encoding_that_hides_markup_is_refused_by_its_name(self, label: str) -> None:
        with pytest.raises(InvalidResponseError, match="encoding"):
            xml.parse(f'<?xml version="1.0" encoding="{label}"?><root/>'.encode())

    @pytest.mark.parametrize(
        "head",
        [
            b'<?xml version="1.0"?><?xml version="1.0" encoding="utf-7"?>',
            b"<!-- --><?xml version='1.0' encoding='utf-7'?>",
            b'<?xml version="1.0" x=">" encoding="utf-7"?>',
            b'<?xml version="1.0"' + b" " * 300 + b'encoding="utf-7"?>',
            b"\x2b\x2f\x76\x38",
        ],
    )
    def test_a_declaration_in_an_odd_place_brings_nothing_to_light(self, head: bytes) -> None:
        document = head + b'+ADwAIQ-DOCTYPE r [+ADwAIQ-ENTITY a "boo"+AD4]+AD4<r><friendlyName>&a;</friendlyName></r>'
        assert value(document) == "&a;"

    @pytest.mark.parametrize("codec", ["cp037", "cp500", "utf-7"])
    def test_an_undeclared_encoding_is_not_guessed(self, codec: str) -> None:
        with pytest.raises(InvalidResponseError):
            xml.parse('<?xml version="1.0"?><!DOCTYPE r><r>x</r>'.encode(codec).replace(b"<", b"+ADw-"))

    def test_a_noncharacter_hides_no_document_type(self) -> None:
        with pytest.raises(InvalidResponseError, match="document type"):
            xml.parse("<!DOC\uffffTYPE root><root/>".encode())

    def test_a_doctype_in_a_comment_or_a_cdata_section_is_none(self) -> None:
        assert (
            value("<r><!-- <!DOCTYPE r> --><friendlyName><![CDATA[<!DOCTYPE r>]]></friendlyName></r>") == "<!DOCTYPE r>"
        )


_MARKUP = (
    *(*"<>/!?&;#xa:[='\" \0é\ud7ff", "<a>", "</a>", "<b/>", "]]>", "<![CDATA[", "<!--", "-->", "<?"),
    *("&#0;", "&#32;", "&#x9;", "&#13;", "&amp;", "\n ", "\t", "\x01", "\x02"),
)
_CANONICAL = re.compile(
    r"""(?: <e\ n="[^\s<>&"\x00-\x1f]*">
            (?: (?![ \t\r\n\x00-\x1f]) (?: [^<&\x00-\x08\x0b\x0c\x0e-\x1f] | &(?:amp|lt|gt|quot|apos); )+ )?
          | <e\ n="[^\s<>&"\x00-\x1f]*"/>
          | </e>
        )+""",
    re.VERBOSE,
)
"""No element but 'e', no attribute but 'n', no text that begins with a blank: libxml2 would cache a run of them."""


class TestWhatReachesTheParser:
    @given(st.binary(max_size=300))
    def test_any_bytes_are_a_tree_or_an_error(self, document: bytes) -> None:
        self.check(document)

    @given(st.lists(st.sampled_from(_MARKUP)))
    def test_any_mixture_of_markup_is_a_tree_or_an_error(self, pieces: list[str]) -> None:
        self.check("".join(pieces).encode())
        self.check("".join(["<a>", *pieces]).encode("utf-16"))

    @staticmethod
    def check(document: bytes) -> None:
        try:
            root = xml.parse(document)
        except InvalidResponseError:
            return
        assert _CANONICAL.fullmatch(xml.canonical(document))
        assert root.getroottree().docinfo.internalDTD is None
        for element in root.iter():
            assert element.tag == "e"  # no entity, no comment, no processing instruction, no name of theirs
            assert set(element.keys()) <= {"n", "unfinished"}

    @given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=100))
    def test_escaped_text_comes_back_as_it_was(self, text: str) -> None:
        root = xml.parse(f"<a><b>{xml.escape(text)}</b></a>".encode())
        assert xml.first_text(root, "b") == text.replace("\ufffe", "").replace("\uffff", "").strip()

    @given(st.binary(max_size=200))
    def test_nothing_of_a_document_depends_on_what_comes_after_its_end(self, garbage: bytes) -> None:
        document = b"<a><b>1</b></a>"
        try:
            root = xml.parse(document + garbage)
        except InvalidResponseError:
            return  # a DOCTYPE
        assert etree.tostring(root) == etree.tostring(xml.parse(document))


class TestIsWhole:
    @pytest.mark.parametrize(
        "document",
        [
            b"<root></root>",
            b"<root>x</root>\r\n\0\0",
            b"<?xml version='1.0'?>\n<s:Envelope xmlns:s='x'><s:Body/></s:Envelope>",
            b"<s:Envelope></SOAP-ENV:envelope >",
            b"<!-- <html> --><root></root><!-- made in 5 ms -->",
            b"<root></root>garbage<p>more</p>",
            b"HTTP/1.1 200 OK <root></root>",
            "<root></root>".encode("utf-16"),
            "<root></root>".encode("utf-16-be"),
            bytearray(b"<root></root>"),
        ],
    )
    def test_a_document_is_whole_when_its_root_has_ended(self, document: bytes) -> None:
        assert xml.has_root_end_tag(document)

    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"text",
            b"<root>",
            b"<root><a></a>",
            b"<root></roo",
            b"<root></root",
            b"<!-- <root> </root>",
            b"</root>",
            b"<root></root>" + b"x" * 2000,
        ],
    )
    def test_otherwise_it_is_not(self, document: bytes) -> None:
        assert not xml.has_root_end_tag(document)

    @given(st.binary(max_size=300))
    def test_it_answers_for_any_bytes(self, document: bytes) -> None:
        assert xml.has_root_end_tag(document) in (True, False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\r\nb", "a b"), ("\x1b[31mred\x9b", "[31mred"), (" x ", "x"), ("1\u20282", "1 2"), ("12345678", "12345")],
)
def test_text_for_people_is_one_short_line_without_control_characters(text: str, shown: str) -> None:
    assert xml.printable_line(text, 5 if text.isdigit() else 40) == shown
