from __future__ import annotations

import pytest

from aioigd.leases.ports import PortsInUse
from aioigd.models import MappingKey

WEB, DNS = MappingKey(80, "TCP"), MappingKey(53, "UDP")


def test_the_last_one_to_leave_is_told() -> None:
    ports = PortsInUse()
    assert WEB not in ports
    ports.enter(WEB)
    ports.enter(WEB)
    ports.enter(DNS)
    assert [ports.leave(WEB), WEB in ports, ports.leave(WEB), WEB in ports] == [False, True, True, False]
    assert DNS in ports
    assert MappingKey(53, "TCP") not in ports
    with pytest.raises(KeyError):
        ports.leave(WEB)
