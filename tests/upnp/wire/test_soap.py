"""Requests have exactly one shape; replies are understood in any, and nothing but an answer counts as one."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.arguments import check_desc, check_request
from aioigd.errors import UsageError
from aioigd.upnp.wire import soap, wan_ip_connection
from aioigd.upnp.wire.soap import Answer, Fault, InvalidReply, build_request, parse_reply, soap_action

WANIP = "urn:schemas-upnp-org:service:WANIPConnection:1"
ACTION = "GetSpecificPortMappingEntry"


def envelope(inner: str) -> bytes:
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f"<s:Body>{inner}</s:Body></s:Envelope>"
    ).encode()


def fault(detail: str, outside: str = "<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>") -> bytes:
    return envelope(f"<s:Fault>{outside}<detail>{detail}</detail></s:Fault>")


def upnp_error(code: str, description: str = "") -> str:
    return (
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{code}</errorCode><errorDescription>{description}</errorDescription></UPnPError>"
    )


ANSWER = envelope(
    f'<u:{ACTION}Response xmlns:u="{WANIP}"><NewInternalPort>80</NewInternalPort>'
    f"<NewInternalClient>192.0.2.5</NewInternalClient></u:{ACTION}Response>"
)
VALUES = {"newinternalport": "80", "newinternalclient": "192.0.2.5"}


class TestRequests:
    def test_add_port_mapping_is_written_as_most_routers_want_it(self) -> None:
        request = check_request(8080, 0, 'a <b> & "c"', "tcp", 3600, None, None)
        action = wan_ip_connection.add_port_mapping(request, "192.0.2.5", request.terms)
        assert build_request(WANIP, action.name, action.arguments) == (
            b'<?xml version="1.0"?>'
            b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
            b' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
            b'<u:AddPortMapping xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">'
            b"<NewRemoteHost></NewRemoteHost>"
            b"<NewExternalPort>8080</NewExternalPort>"
            b"<NewProtocol>TCP</NewProtocol>"
            b"<NewInternalPort>8080</NewInternalPort>"
            b"<NewInternalClient>192.0.2.5</NewInternalClient>"
            b"<NewEnabled>1</NewEnabled>"
            b'<NewPortMappingDescription>a &lt;b&gt; &amp; "c"</NewPortMappingDescription>'
            b"<NewLeaseDuration>3600</NewLeaseDuration>"
            b"</u:AddPortMapping></s:Body></s:Envelope>"
        )

    def test_an_action_without_arguments_has_none(self) -> None:
        assert b'<u:GetStatusInfo xmlns:u="%s"></u:GetStatusInfo></s:Body>' % WANIP.encode() in build_request(
            WANIP, "GetStatusInfo", {}
        )

    def test_the_soap_action_stands_in_quotes_and_keeps_its_case(self) -> None:
        assert soap_action(WANIP, "AddPortMapping") == f'"{WANIP}#AddPortMapping"'

    @given(st.dictionaries(st.from_regex(r"New[A-Za-z]{1,20}", fullmatch=True), st.text(max_size=60), max_size=9))
    def test_another_parser_reads_the_same_arguments(self, arguments: dict[str, str]) -> None:
        for name, value in list(arguments.items()):
            try:
                check_desc(value)
            except UsageError:
                del arguments[name]
        body = ElementTree.fromstring(build_request(WANIP, "AddPortMapping", arguments))[0]
        (action,) = body
        assert action.tag == f"{{{WANIP}}}AddPortMapping"
        assert [(child.tag, child.text or "") for child in action] == list(arguments.items())


class TestAnswers:
    def test_the_values_are_read_by_their_names_in_lower_case(self) -> None:
        assert parse_reply(ANSWER, ACTION) == Answer(VALUES)

    @pytest.mark.parametrize(
        "document",
        [
            ANSWER.replace(b"u:", b"m:"),
            ANSWER.replace(b"s:", b"SOAP-ENV:"),
            ANSWER.replace(b"u:", b""),
            ANSWER.replace(b"WANIPConnection", b"WANPPPConnection"),
            ANSWER.replace(b' xmlns:u="' + WANIP.encode() + b'"', b""),
            ANSWER.replace(b"Response", b"response"),
            ANSWER.replace(b"New", b"new").replace(b"Body", b"BODY"),
            ANSWER.replace(b"<New", b"<u:New").replace(b"</New", b"</u:New"),
            ANSWER.replace(b">", b">\r\n "),
            ANSWER.replace(b"80</", b" 80\n</"),
            ANSWER.replace(b"80</", b"<![CDATA[80]]></"),
            ANSWER.replace(b'<?xml version="1.0"?>', b""),
            ANSWER.replace(b'"1.0"?>', b'"1.0" encoding="iso-8859-1"?>'),
            b"\r\n" + ANSWER + b"\0\r\n",
            ANSWER + b"<!-- 3 ms --><p>garbage</p>",
            ANSWER.replace(b"</s:Body></s:Envelope>", b""),
            ANSWER.replace(b"</s:Envelope>", b"</s:Env"),
            ANSWER[ANSWER.index(b"<u:") : ANSWER.index(b"</s:Body")],
            ANSWER.replace(b"</NewInternalPort>", b""),
            ANSWER.replace(b"<NewInternalPort>", b"<errorCode>0</errorCode><NewInternalPort>"),
            ANSWER.decode().encode("utf-16"),
        ],
    )
    def test_an_answer_counts_however_it_is_spelled(self, document: bytes) -> None:
        reply = parse_reply(document, ACTION)
        assert isinstance(reply, Answer)
        read = dict(reply.values)
        read.pop("errorcode", None)
        assert read.pop("newinternalport") == "80"
        assert read in ({"newinternalclient": "192.0.2.5"}, {})

    @pytest.mark.parametrize(
        "inner", ["<u:XResponse/>", "<u:XResponse></u:XResponse>", "<XResponse xmlns='x'> </XResponse>"]
    )
    def test_an_answer_may_have_no_values(self, inner: str) -> None:
        assert parse_reply(envelope(inner), "X") == Answer({})

    @given(st.integers(0, len(ANSWER)))
    def test_a_cut_answer_counts_only_when_it_arrived_whole(self, end: int) -> None:
        reply = parse_reply(ANSWER[:end], ACTION)
        if end >= ANSWER.index(b"</u:") + len(f"</u:{ACTION}Response>"):
            assert reply == Answer(VALUES)
        else:
            assert isinstance(reply, InvalidReply)

    def test_of_very_many_values_only_some_are_looked_at(self) -> None:
        inner = "".join(f"<NewX{number}>1</NewX{number}>" for number in range(5_000))
        reply = parse_reply(envelope(f"<XResponse>{inner}</XResponse>"), "X")
        assert isinstance(reply, Answer)
        assert len(reply.values) == 64


class TestGibberish:
    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b" \r\n\0",
            b"OK",
            b"<html><body><h1>404 Not Found</h1></body></html>",
            b"<!DOCTYPE html><html><body>Login</body></html>",
            b'{"error": 725}',
            envelope(""),
            envelope("<u:AddPortMappingResponse/>"),
            envelope(f"<u:{ACTION}/>"),
            envelope(f"<u:{ACTION}Responses/>"),
            ANSWER + b" " * 300_000,
            b'<!DOCTYPE x [<!ENTITY a "b">]>' + ANSWER,
            b"\xff\xfe",
        ],
    )
    def test_what_is_no_answer_says_what_it_is(self, document: bytes) -> None:
        reply = parse_reply(document, ACTION)
        assert isinstance(reply, InvalidReply)
        assert reply.reason

    @given(st.binary(max_size=300))
    def test_any_bytes_are_some_reply(self, document: bytes) -> None:
        assert isinstance(parse_reply(document, ACTION), Answer | Fault | InvalidReply)
        assert not isinstance(parse_reply(b"<s:Fault>" + document, ACTION), Answer) or b"Response" in document


class TestFaults:
    def test_a_fault_has_a_code_and_a_description(self) -> None:
        document = fault(upnp_error("718", "ConflictInMappingEntry"))
        assert parse_reply(document, ACTION) == Fault(718, "ConflictInMappingEntry")

    @pytest.mark.parametrize(
        "document",
        [
            fault(upnp_error("+725")),
            fault(upnp_error("\r\n  725\t")),
            fault(upnp_error("0725")),
            fault(upnp_error("<![CDATA[725]]>")),
            fault(upnp_error("725").replace("urn:schemas-upnp-org:control-1-0", "urn:other")),
            fault(upnp_error("725").replace(' xmlns="urn:schemas-upnp-org:control-1-0"', "")),
            fault(upnp_error("725").replace("<", "<e:").replace("<e:/", "</e:")),
            fault(upnp_error("725"), outside=""),
            fault(upnp_error("725")).lower(),
            fault(upnp_error("725")).upper(),
            fault("<errorCode>725</errorCode>"),
            fault("", "<faultcode>725</faultcode>"),
            fault("", "<faultCode>725</faultCode><faultString>no</faultString>"),
            envelope("<s:Fault><errorCode>725</errorCode></s:Fault>"),
            envelope(upnp_error("725")),
            envelope("<errorCode>725</errorCode>"),
            b"<UPnPError><errorCode>725</errorCode></UPnPError>",
            b"<html><errorCode>725</errorCode></html>",
            fault(upnp_error("725"), "<faultcode>500</faultcode>"),
            fault(upnp_error("725") + upnp_error("402")),
            fault(upnp_error("725")).replace(b"</s:Body></s:Envelope>", b""),
            fault(upnp_error("725")).partition(b"</UPnPError>")[0],
            fault(upnp_error("725")) + b"garbage",
            envelope(f"<u:{ACTION}Response><s:Fault>{upnp_error('725')}</s:Fault></u:{ACTION}Response>"),
            envelope(f"<u:{ACTION}Response/><s:Fault>{upnp_error('725')}</s:Fault>"),
        ],
    )
    def test_the_code_is_read_however_it_is_spelled(self, document: bytes) -> None:
        reply = parse_reply(document, ACTION)
        assert isinstance(reply, Fault)
        assert reply.code == 725

    @pytest.mark.parametrize("code", [-911, 0, 402, 718, 501, 999_999])
    def test_any_number_is_a_code(self, code: int) -> None:
        assert parse_reply(fault(upnp_error(str(code), "x")), ACTION) == Fault(code, "x")

    @pytest.mark.parametrize(
        "words",
        [
            "OnlyPermanentLeasesSupported",
            "Only permanent leases supported.",
            "ONLY_PERMANENT_LEASES_SUPPORTED",
            "Error 1: OnlyPermanentLeasesSupported!",
        ],
    )
    @pytest.mark.parametrize(
        "document",
        [
            "<s:Fault><detail><UPnPError><errorDescription>{}</errorDescription></UPnPError></detail></s:Fault>",
            "<s:Fault><errorCode></errorCode><errorDescription>{}</errorDescription></s:Fault>",
            "<s:Fault><faultcode>s:Client</faultcode><faultstring>{}</faultstring></s:Fault>",
            "<s:Fault><detail>{}</detail></s:Fault>",
            "<UPnPError><errorCode>{}</errorCode></UPnPError>",
        ],
    )
    def test_the_words_of_the_standard_stand_for_their_number(self, document: str, words: str) -> None:
        reply = parse_reply(envelope(document.format(words)), ACTION)
        assert isinstance(reply, Fault)
        assert reply.code == 725

    @pytest.mark.parametrize(("words", "code"), soap._CODE_OF_DESCRIPTION.items())
    def test_no_words_are_taken_for_others(self, words: str, code: int) -> None:
        assert parse_reply(fault(f"<errorDescription>{words}</errorDescription>"), ACTION) == Fault(code, words)

    @pytest.mark.parametrize(
        "document",
        [
            fault(""),
            fault("", ""),
            fault(upnp_error("")),
            fault(upnp_error("x")),
            fault(upnp_error("7.25")),
            fault(upnp_error("7 25")),
            fault(upnp_error("0x2d5")),
            fault(upnp_error("٧٢٥")),
            fault(upnp_error("1" * 400)),
            fault(upnp_error("")).replace(b"</errorCode>", b"<b>725</b></errorCode>"),
        ],
    )
    def test_a_fault_without_a_number_or_words_has_no_code(self, document: bytes) -> None:
        reply = parse_reply(document, ACTION)
        assert isinstance(reply, Fault)
        assert reply.code is None

    def test_half_a_number_is_no_code(self) -> None:
        whole = fault(upnp_error("725"))
        for cut in (b"<errorCode>7", b"<errorCode>72", b"<errorCode>725", b"<errorCode>725</err"):
            reply = parse_reply(whole[: whole.index(cut) + len(cut)], ACTION)
            assert reply == Fault(None, "UPnPError")

    def test_a_description_is_one_short_line(self) -> None:
        reply = parse_reply(fault(upnp_error("501", "a\nb\x9b" + "x" * 500)), ACTION)
        assert isinstance(reply, Fault)
        assert reply.description.startswith("a b")
        assert len(reply.description) <= 200

    def test_the_error_description_is_believed_before_the_fault_string(self) -> None:
        assert parse_reply(fault(upnp_error("501", "Action Failed")), ACTION) == Fault(501, "Action Failed")
        assert parse_reply(fault(upnp_error("501")), ACTION) == Fault(501, "UPnPError")
