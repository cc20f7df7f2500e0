"""HTTP as the gateway speaks it, and what it does not let pass."""

from __future__ import annotations

import asyncio

import pytest

from aioigd.testing import EmulatedGateway
from aioigd.testing.http import End, Response, parse_request
from aioigd.upnp.wire.soap import Fault, build_request, parse_reply

from .client import WAN_IP_1, WAN_IP_2, call, get, mapping, post, send

ADDRESS = "GetExternalIPAddress"


async def test_the_description_is_served_with_its_length(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, get())
    assert reply.status == 200
    assert reply.end == "closed"
    assert b'Content-Type: text/xml; charset="utf-8"' in reply.head
    assert f"Content-Length: {len(reply.body)}".encode() in reply.head
    assert reply.body.startswith(b"<?xml")


async def test_a_connection_is_kept_for_those_who_want_it(gateway: EmulatedGateway) -> None:
    request = b"GET /rootDesc.xml HTTP/1.1\r\nHost: x\r\n\r\n"
    reply = await send(gateway, request, request, pause=0.05, patience=0.1)
    assert reply.received.count(b"HTTP/1.1 200 OK") == 2
    assert reply.end == "open"
    assert gateway.tally.accepted == 1


async def test_http_1_0_closes(gateway: EmulatedGateway) -> None:
    reply = await send(gateway, b"GET /rootDesc.xml HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.end) == (200, "closed")


async def test_a_request_may_come_in_any_number_of_pieces(gateway: EmulatedGateway) -> None:
    request = post(ADDRESS)
    reply = await send(gateway, request[:10], request[10:200], request[200:])
    assert reply.status == 200
    assert gateway.requests[0].raw == request


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/nothing.xml"), 404),
        (post(ADDRESS, path="/rootDesc.xml"), 405),
        (get("/ctl/WANIPConn1"), 404),
        (b"GET /rootDesc.xml HTTP/1.1\r\n\r\n", 400),
        (b"GET /rootDesc.xml\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (get("/rootDesc.xml", "Host: another"), 400),
        (post(ADDRESS, headers={"Content-Length": None}), 411),
        (post(ADDRESS, headers={"Content-Length": None, "Transfer-Encoding": "chunked"}), 411),
        (post(ADDRESS, headers={"Content-Length": "many"}), 400),
        (post(ADDRESS, headers={"Content-Length": "99999999"}), 413),
        (post(ADDRESS, headers={"Expect": "100-continue"}), 417),
        (post(ADDRESS) + b"\r\n", 400),
        (post(ADDRESS) + post(ADDRESS), 400),
        (post(ADDRESS, headers={"Content-Type": "application/soap+xml"}), 415),
        (post(ADDRESS, headers={"Content-Type": None}), 415),
        (post(ADDRESS, headers={"SOAPAction": None}), 412),
        (post(ADDRESS, headers={"SOAPAction": f"{WAN_IP_1}#{ADDRESS}"}), 412),
        (post(ADDRESS, body=b"<no"), 400),
        (post(ADDRESS, body=b""), 400),
        (post(ADDRESS, body=b"<Envelope/>"), 400),
        (post(ADDRESS, body=b"<!DOCTYPE x>" + build_request(WAN_IP_1, ADDRESS, {}).partition(b"?>")[2]), 400),
    ],
)
async def test_a_bad_request_is_refused_and_noted(gateway: EmulatedGateway, request_bytes: bytes, status: int) -> None:
    reply = await send(gateway, request_bytes)
    assert (reply.status, reply.end) == (status, "closed")
    assert len(gateway.problems) == 1


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (post("Nonsense"), 401),
        (post("AddAnyPortMapping", mapping()), 401),
        (post(ADDRESS, service_type=WAN_IP_2), 401),
        (post(ADDRESS, headers={"SOAPAction": f'"{WAN_IP_1}#GetStatusInfo"'}), 401),
        (post(ADDRESS, path="/ctl/WANCommonIFC1"), 401),
        (post(ADDRESS, {"NewThing": "1"}), 402),
        (post("AddPortMapping", {}), 402),
        (post("AddPortMapping", dict(reversed(mapping().items()))), 402),
        (post("AddPortMapping", {**mapping(), "NewExternalPort": "http"}), 402),
        (post("AddPortMapping", {**mapping(), "NewExternalPort": "70000"}), 601),
        (post("AddPortMapping", {**mapping(), "NewProtocol": "tcp"}), 600),
        (post("AddPortMapping", {**mapping(), "NewEnabled": "on"}), 402),
    ],
)
async def test_a_bad_action_is_refused_with_a_fault(gateway: EmulatedGateway, request_bytes: bytes, code: int) -> None:
    reply = await send(gateway, request_bytes)
    answer = parse_reply(reply.body, "")
    assert reply.status == 500
    assert isinstance(answer, Fault)
    assert answer.code == code
    assert len(gateway.problems) == 1


async def test_version_2_can_be_asked_in_the_words_of_version_1(gateway_v2: EmulatedGateway) -> None:
    assert not isinstance(await call(gateway_v2, ADDRESS, service_type=WAN_IP_1), Fault)
    assert not isinstance(await call(gateway_v2, ADDRESS, service_type=WAN_IP_2), Fault)
    assert gateway_v2.problems == []


async def test_every_service_has_its_document(gateway_v2: EmulatedGateway) -> None:
    for label in ("L3Forwarding1", "WANCommonIFC1", "WANIPConn1"):
        reply = await send(gateway_v2, get(f"/scpd/{label}.xml"))
        assert reply.status == 200
        assert b"<scpd " in reply.body


async def test_a_client_that_closes_its_side_gets_its_answer(gateway: EmulatedGateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.address, gateway.port)
    writer.write(get())
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()


async def test_half_a_request_is_a_bad_one(gateway: EmulatedGateway) -> None:
    reader, writer = await asyncio.open_connection(gateway.address, gateway.port)
    writer.write(get()[:20])
    writer.write_eof()
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


def test_requests_are_parsed_only_when_they_are_complete() -> None:
    whole = post(ADDRESS)
    assert all(parse_request(whole[:length]) is None for length in range(len(whole)))
    request = parse_request(whole)
    assert request is not None
    assert (request.method, request.target, request.refusal) == ("POST", "/ctl/WANIPConn1", 0)
    assert request.header("soapaction") == f'"{WAN_IP_1}#{ADDRESS}"'


def test_a_response_is_one_piece() -> None:
    sent = Response(200, (("X", "y"),), b"body", end=End.CLOSE).transmission()
    assert list(sent.steps) == [b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"]
