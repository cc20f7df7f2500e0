"""The command on a real router: what it opens lets packets in, and the doctor is right about a real network."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .decoy import Decoy
from .network import EXTERNAL_ADDRESS, LAN_ADDRESS, NEIGHBOUR_ADDRESS, ROUTER_ADDRESS, Lab
from .router import Mapping, Router


def aioigd(lab: Lab, *arguments: object, code: int = 0) -> str:
    """Run the command on the LAN host, and return what it said."""
    words = [sys.executable, "-m", "aioigd", *(str(each) for each in arguments)]
    done = lab.run("lan", words, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def document(lab: Lab, *arguments: object, code: int = 0) -> Any:
    return json.loads(aioigd(lab, *arguments, "--json", code=code))


@contextlib.contextmanager
def started(lab: Lab, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "aioigd", *(str(each) for each in arguments)]
    with (
        lab.inside("lan"),
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], text: str) -> Any:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return json.loads(line)
    raise AssertionError(f"{text!r} never came")


class TestMapping:
    def test_a_port_is_opened_listed_and_closed(self, lab: Lab, router: Router) -> None:
        with lab.listen("lan", "TCP", 8080):
            assert f"{EXTERNAL_ADDRESS}:8081" in aioigd(lab, "add", 8081, "--internal", 8080, "--for", "1h")
            assert lab.send_tcp("wan", EXTERNAL_ADDRESS, 8081, b"hello") == b"lan: hello"
        (mapping,) = document(lab, "list")["mappings"]
        assert (mapping["external_port"], mapping["internal_client"]) == (8081, LAN_ADDRESS)
        assert 3500 < mapping["duration"] <= 3600
        aioigd(lab, "delete", 8081)
        assert router.mappings() == []
        aioigd(lab, "delete", 8081, code=0)  # this router says yes to that, too

    def test_a_range_is_opened_at_once_for_both_protocols(self, lab: Lab, router: Router) -> None:
        assert "100 open on" in aioigd(lab, "add", "8000-8049", "--both")
        assert len(router.mappings()) == 100

    def test_a_neighbours_port_is_left_alone(self, lab: Lab) -> None:
        router = lab.start_router(secure=False)
        aioigd(lab, "add", 8080, "--internal", NEIGHBOUR_ADDRESS)
        taken = document(lab, "add", 8080, code=1)
        assert taken["failures"][0]["error"]["result"] == "CONFLICT_WITH_OTHER_MAPPING"
        aioigd(lab, "add", 8080, "--replace")
        assert router.mappings() == [Mapping("TCP", 8080, LAN_ADDRESS, 8080)]


class TestKeep:
    def test_ports_are_kept_through_a_restart_and_gone_after_ctrl_c(self, lab: Lab, router: Router) -> None:
        with started(lab, "add", "8080-8081", "--keep", "--json") as process:
            line_with(process, '"held"')
            assert len(router.mappings()) == 2
            router.restart(lose_leases=True)
            line_with(process, '"BACK"')
            line_with(process, '"BACK"')
            assert len(router.mappings()) == 2
            process.send_signal(signal.SIGINT)
            assert line_with(process, '"released"')["mappings"] == []
            assert process.wait(10) == 0
        assert router.mappings() == []


class TestLooking:
    def test_the_router_is_found_and_told_of(self, lab: Lab, router: Router) -> None:
        lines = aioigd(lab, "discover", "--timeout", 1, "--json").splitlines()
        found = {each["protocol"]: each for each in map(json.loads, lines)}
        assert found["upnp"]["description_url"] == router.location
        assert {each["address"] for each in found.values()} == {ROUTER_ADDRESS}
        assert found.keys() >= {"upnp", "nat-pmp"}
        status = document(lab, "status")
        assert status["external_address"] == EXTERNAL_ADDRESS
        assert status["protocols"] == [each for each in ("upnp", "pcp", "nat-pmp") if each in found]
        assert status["connection"]["status"] == "Connected"
        assert status["traffic"]["bytes_received"] >= 0

    def test_the_interface_can_be_chosen(self, lab: Lab, router: Router) -> None:
        assert document(lab, "list", "--interface", "lan0")["mappings"] == []
        aioigd(lab, "list", "--interface", "lan1", code=2)

    def test_a_new_address_is_seen(self, lab: Lab, router: Router) -> None:
        with started(lab, "watch", "--interval", 0.2, "--json") as process:
            line_with(process, '"sample"')
            lab.set_external_address("44.0.0.9")
            change = line_with(process, '"address"')
            assert (change["old"], change["new"]) == (EXTERNAL_ADDRESS, "44.0.0.9")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0

    def test_nobody_there_is_exit_3(self, lab: Lab) -> None:
        aioigd(lab, "list", "--timeout", 1, code=3)


class TestRecord:
    def test_a_conversation_with_a_real_router_is_written_down(self, lab: Lab, router: Router, tmp_path: Path) -> None:
        file = tmp_path / "router.json"
        written = document(lab, "record", file, "--timeout", 1)
        assert written["advice"] == []
        assert written["requests"] > 5
        assert "AddPortMapping" in file.read_text("utf-8")
        assert EXTERNAL_ADDRESS not in file.read_text("utf-8")
        assert router.mappings() == []


class TestDoctor:
    @staticmethod
    def advice(lab: Lab, *options: object) -> list[str]:
        words = [sys.executable, "-m", "aioigd", "doctor", "--json", "--timeout", "8", *(str(o) for o in options)]
        done = lab.run("lan", words, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        return [each["code"] for each in json.loads(done.stdout)["advice"]]

    def test_all_is_well(self, lab: Lab, router: Router) -> None:
        assert self.advice(lab) == []
        assert router.mappings() == []

    def test_upnp_is_off(self, lab: Lab) -> None:
        assert self.advice(lab) == ["upnp-off"]

    def test_there_is_no_router(self, lab: Lab) -> None:
        lab.set_default_route("192.168.77.99")
        assert self.advice(lab) == ["no-gateway"]

    def test_a_firewall_drops_multicast(self, lab: Lab, router: Router) -> None:
        lab.run("lan", ["nft", "add", "table", "ip", "deaf"])
        try:
            lab.run("lan", ["nft", "add", "chain", "ip", "deaf", "out", "{ type filter hook output priority 0; }"])
            lab.run("lan", ["nft", "add", "rule", "ip", "deaf", "out", "ip daddr 239.255.255.250 drop"])
            assert self.advice(lab) == ["multicast-dropped"]
        finally:
            lab.run("lan", ["nft", "delete", "table", "ip", "deaf"])

    def test_two_gateways(self, lab: Lab, router: Router) -> None:
        with Decoy(lab, "neighbour", NEIGHBOUR_ADDRESS):
            assert self.advice(lab) == ["several-gateways"]

    def test_a_gateway_that_is_not_the_router(self, lab: Lab, router: Router) -> None:
        lab.set_default_route(NEIGHBOUR_ADDRESS)
        assert self.advice(lab) == ["not-the-router"]

    def test_a_router_without_a_connection(self, lab: Lab, router: Router) -> None:
        lab.set_external_address(None)
        assert self.advice(lab) == ["refused", "offline"]

    @pytest.mark.parametrize("address", ["10.1.2.3", "100.64.3.4"])
    def test_a_router_without_a_public_address(self, lab: Lab, router: Router, address: str) -> None:
        # This one tells nobody of an address that is not public, and maps nothing then.
        lab.set_external_address(address)
        assert self.advice(lab) == ["refused", "no-address"]

    def test_a_router_that_lets_nobody(self, lab: Lab) -> None:
        lab.start_router(options=["deny 0-65535 0.0.0.0/0 0-65535"])
        assert self.advice(lab) == ["refused"]

    def test_a_vpn_takes_the_traffic(self, lab: Lab, router: Router) -> None:
        lab.run("lan", ["ip", "link", "add", "tun0", "type", "veth", "peer", "name", "tun0peer"])
        try:
            for words in (
                ["ip", "address", "add", "10.8.0.2/24", "dev", "tun0"],
                ["ip", "link", "set", "tun0", "up"],
                ["ip", "link", "set", "tun0peer", "up"],
                ["ip", "route", "replace", "default", "via", "10.8.0.1", "dev", "tun0"],
            ):
                lab.run("lan", words)
            assert self.advice(lab) == ["vpn"]
            assert self.advice(lab, "--interface", "tun0") == ["wrong-interface"]
        finally:
            lab.run("lan", ["ip", "link", "delete", "tun0"])
            lab.run("lan", ["ip", "route", "replace", "default", "via", ROUTER_ADDRESS, "dev", "lan0"])
