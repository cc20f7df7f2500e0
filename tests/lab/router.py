"""One miniupnpd process: its configuration, its life, and the rules it really made."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import re
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .namespace import Namespace

START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
ASKED_TIMEOUT = 10.0

_EMPTY_CHAINS = """\
*nat
:MINIUPNPD - [0:0]
:MINIUPNPD-POSTROUTING - [0:0]
COMMIT
*filter
:MINIUPNPD - [0:0]
COMMIT
"""

_DEVICES = (
    "mount -t tmpfs none /dev && for it in null:3 random:8 urandom:9; do mknod -m 666 /dev/${it%:*} c 1 ${it#*:}; done"
)
_WITHOUT_CONSOLE = ("unshare", "-m", "sh", "-ec", f'{_DEVICES}; exec "$@"', "sh")
"""Where nobody takes what daemons log, miniupnpd writes each line to the console, which takes 13 to 27 ms if it is a
serial one, most of what a request takes. With a /dev of its own it has none."""


@dataclass(frozen=True, slots=True, order=True)
class Mapping:
    """A port mapping as the packet filter holds it, whatever the daemon says about it."""

    proto: str
    external_port: int
    internal_client: str
    internal_port: int
    remote_host: str = ""


class Router:
    def __init__(
        self,
        namespace: Namespace,
        *,
        asker: Namespace,
        directory: Path,
        address: str,
        igd_v1: bool,
        secure: bool,
        ipv6: bool,
        options: Sequence[str],
        lan_interface: str = "br-lan",
        console: bool = True,
    ) -> None:
        self.namespace = namespace
        self.address = address
        self.port = 0
        self._asker = asker
        self._process: subprocess.Popen[bytes] | None = None
        self._wrapper = () if console else _WITHOUT_CONSOLE
        self._log = directory / "log"
        self._leases = directory / "leases"
        self._configuration = directory / "miniupnpd.conf"
        self._pid_file = directory / "pid"
        self._asked_by_harness = 0
        self._configuration.write_text(
            "\n".join(
                [
                    "ext_ifname=wan0",
                    f"listening_ip={lan_interface}",
                    "http_port=0",
                    "enable_upnp=yes",
                    "enable_natpmp=yes",
                    f"secure_mode={_yes(secure)}",
                    f"force_igd_desc_v1={_yes(igd_v1)}",
                    f"ipv6_disable={_yes(not ipv6)}",
                    f"lease_file={self._leases}",
                    f"uuid={uuid.uuid4()}",
                    *options,
                    "allow 1-65535 0.0.0.0/0 1-65535",
                    "",
                ]
            )
        )

    @property
    def location(self) -> str:
        """The description URL; another one after each start."""
        return f"http://{self.address}:{self.port}/rootDesc.xml"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def log(self) -> str:
        """What the daemon said since its last start."""
        return self._log.read_text(errors="replace")

    def asked(self, what: str) -> int:
        """How often the daemon was asked since its last start for an action ("AddPortMapping") or a path ("/x")."""
        said = self._log.read_bytes()[self._asked_by_harness :].decode(errors="replace")
        line = rf": GET {re.escape(what)} " if what.startswith("/") else rf"SOAPAction: \S+#{what}$"
        return len(re.findall(line, said, re.MULTILINE))

    async def until_asked(self, what: str, times: int = 1) -> None:
        """Wait until the daemon has been asked for it so often."""
        async with asyncio.timeout(ASKED_TIMEOUT):
            while self.asked(what) < times:  # noqa: ASYNC110 - the daemon's log tells nobody that it grows
                await asyncio.sleep(0.002)

    def start(self) -> None:
        """Return when the daemon has answered on its new control port."""
        with self._log.open("wb") as log, self.namespace.inside():
            self._process = subprocess.Popen(
                [*self._wrapper, "miniupnpd", "-d", "-f", str(self._configuration), "-P", str(self._pid_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait_for_answer()
        except RuntimeError:
            self.end()
            raise
        self._asked_by_harness = self._log.stat().st_size

    def wait_for_answer(self) -> None:
        """Return when the daemon serves its description; after a pause it has a lot to catch up with."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._running().poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"miniupnpd does not answer:\n{self.log}")
            time.sleep(0.005)

    def stop(self) -> None:
        """A clean end: the daemon says byebye. Its rules stay in the packet filter."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """A crash: no byebye. Its rules stay in the packet filter."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It hangs: the kernel still accepts connections, and nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def restart(self, *, lose_leases: bool = False) -> None:
        """A clean restart on a new control port; with `lose_leases` no mapping survives, as in a reboot."""
        self.stop()
        if lose_leases:
            self.forget_mappings()
        self.start()

    def forget_mappings(self) -> None:
        """Lose the lease file and the rules; only while the daemon does not run."""
        self._leases.unlink(missing_ok=True)
        self.namespace.run(["iptables-legacy-restore", "--noflush"], stdin=_EMPTY_CHAINS)

    def end(self) -> None:
        """Whatever state the process is in."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def mappings(self) -> list[Mapping]:
        """Read from the packet filter, not from the daemon.

        iptables 1.8.9 lists miniupnpd's DNAT rules without their destination ("unsupported revision"), but
        for each the daemon appends a rule to the filter table, in the same order, and that one names it. It writes one
        table after the other, so both are read again where that was in between.
        """
        until = time.monotonic() + ASKED_TIMEOUT
        while True:
            redirects = self._rules("nat")
            admissions = self._rules("filter")
            is_whole = len(redirects) == len(admissions) and self._rules("nat") == redirects
            if is_whole or time.monotonic() > until:
                break
        return sorted(_mapping(*pair) for pair in zip(redirects, admissions, strict=True))

    def pinholes(self) -> list[str]:
        """The rules that let IPv6 in, as ip6tables prints them."""
        rules = self.namespace.run(["ip6tables-legacy", "-S", "MINIUPNPD"]).stdout
        return [line for line in rules.splitlines() if line.startswith("-A ")]

    def _end(self, number: signal.Signals) -> None:
        process = self._running()
        process.send_signal(number)
        # A paused process takes SIGTERM only once it runs again.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT)
        finally:
            self.end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this router is not running")
        return self._process

    def _rules(self, table: str) -> list[dict[str, str]]:
        """For each rule its options: `-A MINIUPNPD -s 44.0.0.2/32 -p tcp -m tcp --dport 80 -j DNAT`."""
        listing = self.namespace.run(["iptables-legacy", "-t", table, "-S", "MINIUPNPD"]).stdout
        rules = [line for line in listing.splitlines() if line.startswith("-A ")]
        return [dict(itertools.pairwise(shlex.split(rule))) for rule in rules]

    def _answers(self) -> bool:
        announced = re.search(r"HTTP listening on port (\d+)", self.log)
        if announced is None:
            return False
        self.port = int(announced[1])
        with self._asker.inside(), contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self.address, self.port, timeout=1.0)
            try:
                connection.request("GET", "/rootDesc.xml")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _mapping(redirect: dict[str, str], admission: dict[str, str]) -> Mapping:
    for option in ("-p", "-s"):
        if redirect.get(option) != admission.get(option):
            raise RuntimeError(f"these two rules are not of the same mapping: {redirect}, {admission}")
    return Mapping(
        proto=redirect["-p"].upper(),
        external_port=int(redirect["--dport"]),
        internal_client=admission["-d"].removesuffix("/32"),
        internal_port=int(admission["--dport"]),
        remote_host=redirect.get("-s", "").removesuffix("/32"),
    )
