"""What a device is and can do is read from any description that says so, and from nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioigd.errors import InvalidResponseError
from aioigd.upnp.wire.description import MAX_SERVICES, Description, parse_description
from aioigd.upnp.wire.url import HttpUrl

URL = HttpUrl("192.0.2.1", 5000, "/igd/rootDesc.xml")
WANIP = "urn:schemas-upnp-org:service:WANIPConnection:1"
WANPPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
COMMON = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"


def service(service_type: str = WANIP, control: str = "/ctl", event: str = "/evt") -> str:
    return (
        f"<service><serviceType>{service_type}</serviceType><serviceId>urn:upnp-org:serviceId:X</serviceId>"
        f"<controlURL>{control}</controlURL><eventSubURL>{event}</eventSubURL><SCPDURL>/x.xml</SCPDURL></service>"
    )


def gateway(*services: str, base: str = "") -> str:
    """Return the description of a gateway as the standard nests it."""
    return (
        '<?xml version="1.0"?>\n<root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"<specVersion><major>1</major><minor>0</minor></specVersion>{base}"
        "<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>"
        "<friendlyName>My router</friendlyName><manufacturer>ACME</manufacturer><modelName>R1</modelName>"
        "<UDN>uuid:1</UDN><deviceList><device>"
        "<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><friendlyName>WAN</friendlyName>"
        f"<serviceList>{service(COMMON, '/common')}</serviceList><deviceList><device>"
        "<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>"
        f"<serviceList>{''.join(services)}</serviceList>"
        "</device></deviceList></device></deviceList></device></root>"
    )


def parse(document: str | bytes) -> Description:
    return parse_description(document.encode() if isinstance(document, str) else document, URL)


def test_a_gateway_is_read_in_all_its_parts() -> None:
    description = parse(gateway(service()))
    assert description.device_type == "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
    assert (description.friendly_name, description.manufacturer) == ("My router", "ACME")
    assert (description.model_name, description.udn) == ("R1", "uuid:1")
    assert [found.name for found in description.services] == ["wancommoninterfaceconfig", "wanipconnection"]
    (connection,) = description.wan_connections
    assert connection.service_type == WANIP
    assert connection.control_reference == "/ctl"
    assert connection.control_urls == (HttpUrl("192.0.2.1", 5000, "/ctl"),)
    assert connection.event_urls == (HttpUrl("192.0.2.1", 5000, "/evt"),)


class TestSloppyDescriptions:
    GOOD = gateway(service())

    @pytest.mark.parametrize(
        "document",
        [
            GOOD.replace(' xmlns="urn:schemas-upnp-org:device-1-0"', ""),
            GOOD.replace("urn:schemas-upnp-org:device-1-0", "urn:schemas-upnp-org:service-1-0"),
            GOOD.replace("schemas-upnp-org", "dslforum-org"),
            GOOD.replace("<", "<u:").replace("<u:/", "</u:").replace("<u:?", "<?"),
            GOOD.lower().replace("wanipconnection", "WANIPConnection"),
            GOOD.upper().replace("/CTL", "/ctl").replace("URN:SCHEMAS-UPNP-ORG:SERVICE:WANIP", "urn:x:service:WANIP"),
            GOOD.replace(">", ">\r\n\t ").replace("</", "\r\n  </"),
            GOOD.replace("/ctl", "<![CDATA[/ctl]]>").replace(WANIP, f"<![CDATA[ {WANIP} ]]>"),
            GOOD.replace("My router", "AT&T <home> & \x01\x02 &copy;"),
            GOOD + "\0",
            GOOD + "<!-- made by ACME -->\n\n<p>garbage</p> & more",
            "\r\n\r\n" + GOOD,
            "\ufeff" + GOOD,
            GOOD.replace('<?xml version="1.0"?>', '<?xml version="1.0" encoding="martian"?>'),
            GOOD.replace("</modelName>", ""),
            GOOD.replace("</serviceId>", "</serviceID>").replace("</deviceList>", "", 1),
            GOOD.replace("</device></deviceList></device></deviceList></device></root>", ""),
            GOOD[: GOOD.rindex("</service>") + len("</service>")],
            f"<root><device><serviceList>{service()}</serviceList></device></root>",
            f"<root>{service()}</root>",
            f"<serviceList>{service()}</serviceList>",
            service(),
        ],
    )
    def test_the_wan_connection_is_found(self, document: str) -> None:
        (connection,) = parse(document).wan_connections
        assert connection.control_urls[0] == HttpUrl("192.0.2.1", 5000, "/ctl")

    @pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le"])
    def test_it_is_found_in_any_unicode(self, codec: str) -> None:
        assert parse(self.GOOD.encode(codec)).wan_connections

    @pytest.mark.parametrize(
        "base", ["", "<URLBase/>", "<URLBase></URLBase>", "<URLBase>http://192.0.2.1</URLBase>", "<URLBase>x</URLBase>"]
    )
    def test_a_base_that_says_nothing_changes_nothing(self, base: str) -> None:
        (connection,) = parse(gateway(service(control="ctl"), base=base)).wan_connections
        assert connection.control_urls[0] == HttpUrl("192.0.2.1", 5000, "/igd/ctl")

    def test_a_base_with_a_port_counts_first(self) -> None:
        base = "<URLBase>http://198.51.100.9:49152/</URLBase>"
        (connection,) = parse(gateway(service(), base=base)).wan_connections
        assert [str(url) for url in connection.control_urls] == [
            "http://192.0.2.1:49152/ctl",
            "http://192.0.2.1:5000/ctl",
        ]

    def test_an_ampersand_in_a_control_url_needs_no_escape(self) -> None:
        (connection,) = parse(gateway(service(control="/ctl?a=1&b=2"))).wan_connections
        assert connection.control_urls[0].target == "/ctl?a=1&b=2"

    @given(st.integers(0, len(GOOD)))
    def test_a_cut_document_has_only_the_services_that_arrived_whole(self, end: int) -> None:
        whole = parse(self.GOOD).services
        try:
            services = parse(self.GOOD[:end]).services
        except InvalidResponseError:
            services = ()
        assert services == whole[: self.GOOD[:end].count("</service>")]


class TestServices:
    def test_of_several_connections_each_is_found(self) -> None:
        services = [service(WANIP, "/a"), service(WANPPP, "/b"), service(WANIP, "/c"), service(COMMON, "/d")]
        assert [found.control_reference for found in parse(gateway(*services)).wan_connections] == ["/a", "/b", "/c"]

    def test_two_kinds_of_connection_may_share_a_control_url(self) -> None:
        found = parse(gateway(service(WANIP), service(WANPPP))).wan_connections
        assert [connection.service_type for connection in found] == [WANIP, WANPPP]

    @pytest.mark.parametrize("versions", [(1, 1), (1, 2), (2, 1), (2, 1, 2)])
    def test_of_a_service_that_is_listed_again_the_newest_version_counts(self, versions: tuple[int, ...]) -> None:
        services = [service(f"{WANIP[:-1]}{version}") for version in versions]
        (connection,) = parse(gateway(*services)).wan_connections
        assert connection.version == max(versions)

    @pytest.mark.parametrize(
        ("service_type", "name", "version"),
        [
            (WANIP, "wanipconnection", 1),
            ("urn:schemas-upnp-org:service:WANIPConnection:2", "wanipconnection", 2),
            ("urn:dslforum-org:service:WANPPPConnection:1", "wanpppconnection", 1),
            ("urn:schemas-upnp-org:service:WANIPConnection", "wanipconnection", 1),
            ("URN:Schemas-UPnP-org:Service:wanipCONNECTION:13", "wanipconnection", 13),
            ("urn:schemas-wifialliance-org:service:WFAWLANConfig:1", "wfawlanconfig", 1),
        ],
    )
    def test_a_service_type_keeps_its_spelling_and_is_understood(
        self, service_type: str, name: str, version: int
    ) -> None:
        found = parse(gateway(service(service_type))).services[-1]
        assert (found.service_type, found.name, found.version) == (service_type, name, version)
        assert found.is_wan_connection == name.startswith(("wanip", "wanppp"))

    @pytest.mark.parametrize(
        "service_type",
        [
            "",
            "WANIPConnection",
            "urn:schemas-upnp-org:device:WANIPConnection:1",
            f"{WANIP}#AddPortMapping",
            f'{WANIP}" x="',
            f"{WANIP}\r\nX-Evil: 1",
            f"{WANIP}1234",
            f"x{WANIP}",
            WANIP.replace("WANIP", "W" * 80),
            WANIP.replace("WANIP", "WÄNIP"),
            WANIP.replace(":1", ":\u0661"),
        ],
    )
    def test_a_service_type_that_could_carry_something_else_is_no_service(self, service_type: str) -> None:
        assert [found.name for found in parse(gateway(service(service_type))).services] == ["wancommoninterfaceconfig"]

    def test_a_service_is_found_by_its_name(self) -> None:
        description = parse(gateway(service()))
        found = description.service("wancommoninterfaceconfig")
        assert found is not None
        assert found.control_reference == "/common"
        assert description.service("wanipv6firewallcontrol") is None

    def test_a_control_url_that_cannot_be_used_is_told_from_none(self) -> None:
        foreign, empty = parse(gateway(service(control="https://x/"), service(WANPPP, control=""))).wan_connections
        assert (foreign.control_reference, foreign.control_urls) == ("https://x/", ())
        assert (empty.control_reference, empty.control_urls) == ("", ())

    def test_of_five_thousand_services_only_a_few_are_looked_at(self) -> None:
        many = "<service><serviceType>urn:x:service:Y:1</serviceType></service>" * 4_000
        description = parse(gateway(service(), many))
        assert len(description.services) == MAX_SERVICES
        assert len(description.wan_connections) == 1
        assert parse(gateway(*["<service/>"] * 5_000, service())).wan_connections == ()

    def test_the_values_of_nested_services_are_not_mixed_up(self) -> None:
        inner = service(WANPPP, "/inner")
        document = (
            f"<root><service>{inner}<serviceType>{WANIP}</serviceType><controlURL>/outer</controlURL></service></root>"
        )
        found = [(each.name, each.control_reference) for each in parse(document).services]
        assert found == [("wanipconnection", "/outer"), ("wanpppconnection", "/inner")]


class TestDevices:
    def test_an_access_point_may_be_a_gateway_without_any_connection(self) -> None:
        assert parse(gateway()).wan_connections == ()

    def test_a_name_is_one_short_line(self) -> None:
        document = f"<device><friendlyName>\x1b[1ma\n\u009bb{'x' * 500}</friendlyName></device>"
        name = parse(document).friendly_name
        assert name.startswith("[1ma b")
        assert len(name) <= 128

    @pytest.mark.parametrize(
        "document", ["<html><body>Login</body></html>", "<root></root>", "<!DOCTYPE html><p>", "no"]
    )
    def test_what_has_neither_device_nor_service_is_no_description(self, document: str) -> None:
        with pytest.raises(InvalidResponseError):
            parse(document)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_description_or_an_error(self, noise: bytes) -> None:
        for document in (noise, b"<root><device>" + noise, service().encode() + noise):
            try:
                description = parse(document)
            except InvalidResponseError:
                continue
            assert all(url.host == URL.host for found in description.services for url in found.control_urls)
