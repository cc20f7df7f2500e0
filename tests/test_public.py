"""What other people's programs rely on: the names, their arguments and defaults, and that each says what it is."""

from __future__ import annotations

import inspect
import types
from importlib import resources

import pytest

import aioigd
from aioigd import Device, Gateway, IGDError, PortMapper, PortMapping
from aioigd.testing import EmulatedGateway

PUBLIC = [getattr(aioigd, name) for name in aioigd.__all__ if name not in ("Proto", "ProtocolName")]


def signature(function: object) -> str:
    """A signature without annotations, as a caller thinks of it."""
    assert callable(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]
    return str(inspect.Signature(parameters))


def test_everything_that_is_exported_is_in_all_and_the_other_way_round() -> None:
    defined = {
        name
        for name, value in vars(aioigd).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    } - {"TYPE_CHECKING", "import_module"}
    assert all(getattr(aioigd, name) is not None for name in aioigd._OF_LEASES)
    defined |= set(aioigd._OF_LEASES)
    assert set(aioigd.__all__) == defined
    assert aioigd.__all__ == sorted(aioigd.__all__)


WAYS = ", protocols=('upnp', 'pcp', 'nat-pmp'), gateway=None, pcp_secret=None"
ADD = (
    "(port, internal_port=0, desc='', proto='UDP', duration=0, *, "
    "internal_client=None, remote_host='', verify=False, overwrite={overwrite}{more})"
)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            PortMapper,
            "(*, source_address=None, location=None, timeout=10.0, discovery_timeout=5.0, ttl=2, local_port=0, "
            f"ipv6=False{WAYS})",
        ),
        (PortMapper.discover, "(timeout=2.0, ttl=2, device_filter='InternetGatewayDevice')"),
        (PortMapper.iter_devices, "(timeout=2.0, ttl=2, device_filter='InternetGatewayDevice', *, host=None)"),
        (PortMapper.get_gateway, "()"),
        (PortMapper.add_port_mapping, ADD.format(overwrite=True, more="")),
        (PortMapper.delete_port_mapping, "(port, proto='UDP', *, remote_host='', verify=False)"),
        (PortMapper.query_external_address, "()"),
        (PortMapper.close, "()"),
        (Gateway.add_port_mapping, ADD.format(overwrite=False, more="")),
        (Gateway.delete_port_mapping, "(port, proto='UDP', *, remote_host='', verify=False)"),
        (Gateway.query_external_address, "()"),
        (Gateway.query_port_mapping, "(port, proto='UDP', *, remote_host='')"),
        (aioigd.add_port_mapping, ADD.format(overwrite=True, more=", source_address=None, location=None" + WAYS)),
        (
            aioigd.delete_port_mapping,
            f"(port, proto='UDP', *, remote_host='', verify=False, source_address=None, location=None{WAYS})",
        ),
        (aioigd.query_external_address, "(*, source_address=None, location=None" + WAYS + ")"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_the_arguments_and_their_defaults_are_those_of_the_design(function: object, expected: str) -> None:
    assert signature(function) == expected


def test_a_lease_takes_what_the_design_says() -> None:
    parameters = inspect.signature(PortMapper.lease).parameters
    assert [*parameters][:6] == ["self", "port", "internal_port", "desc", "proto", "duration"]
    assert parameters["duration"].default == 3600
    assert [*parameters][6:] == ["internal_client", "on_conflict", "required", "poll_interval", "ipv6"]
    assert parameters["internal_client"].default is None
    assert parameters["internal_client"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["on_conflict"].default == "fail"
    assert parameters["on_conflict"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_plain_functions_take_the_arguments_of_the_methods_and_more() -> None:
    for name in ("add_port_mapping", "delete_port_mapping", "query_external_address", "discover"):
        method = [*inspect.signature(getattr(PortMapper, name)).parameters][1:]
        assert [*inspect.signature(getattr(aioigd, name)).parameters][: len(method)] == method


def test_a_mapping_has_the_fields_of_the_design() -> None:
    assert PortMapping.__match_args__[:7] == (
        "external_port",
        "internal_port",
        "internal_client",
        "proto",
        "desc",
        "duration",
        "remote_host",
    )


@pytest.mark.parametrize(
    "name",
    ["description_url", "service_type", "igd_control_url", "igd_service_type", "igd_our_addr", "igd_status"],
)
def test_a_device_has_the_attributes_of_godot(name: str) -> None:
    assert hasattr(Device(), name)
    assert Device().is_valid_gateway() is False


def test_an_emulated_gateway_has_what_the_design_says() -> None:
    assert signature(EmulatedGateway).startswith("(*quirks, address='127.0.0.1'")
    for name in ("location", "address", "mappings", "external_address"):
        assert isinstance(getattr(EmulatedGateway, name), property)


def documented() -> list[object]:
    found: list[object] = []
    for each in PUBLIC:
        found.append(each)
        if inspect.isclass(each):
            found += [
                member
                for name, member in vars(each).items()
                if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
            ]
    return found


@pytest.mark.parametrize(
    "thing",
    documented(),
    ids=lambda thing: getattr(thing, "__qualname__", None) or getattr(thing.fget, "__qualname__", ""),
)
def test_everything_public_says_what_it_is(thing: object) -> None:
    assert (thing.__doc__ or "").strip().endswith((".", ":", "=")) or "====" in (thing.__doc__ or "")


def test_every_error_is_an_igd_error() -> None:
    errors = [each for each in PUBLIC if inspect.isclass(each) and issubclass(each, Exception)]
    assert len(errors) > 5
    assert all(issubclass(error, IGDError) for error in errors)


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert resources.files("aioigd").joinpath("py.typed").is_file()


def test_the_package_knows_its_version() -> None:
    assert aioigd.__version__.count(".") == 2
