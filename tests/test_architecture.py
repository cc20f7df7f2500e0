"""The arrows of the house: which module may import which, read from their syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import pytest

import aioigd
import aioigd.testing

PACKAGE = Path(aioigd.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)

WORDS = {"text", "errors", "models", "results", "arguments"}
MAY_IMPORT = {
    "results": set(),
    "text": set(),
    "errors": {"results", "text"},
    "models": {"results"},
    "arguments": WORDS,
    "net": WORDS | {"net"},
    "core": WORDS | {"net", "core"},
    "upnp": WORDS | {"net", "core", "upnp"},
    "pcp": WORDS | {"net", "core", "pcp"},
    "leases": WORDS | {"net", "core", "leases"},
    "gateway": WORDS | {"net", "core"},
    "mapper": WORDS | {"net", "core", "leases", "upnp", "pcp", "gateway"},
    "functions": WORDS | {"core", "mapper"},
    "traffic_meter": WORDS,
    "testing": WORDS | {"net", "upnp", "pcp", "testing"},
    "__init__": WORDS | {"gateway", "leases", "mapper", "functions", "net", "traffic_meter"},
}
"""Each room, and the rooms that it may look into. ``cli`` and ``__main__`` have a rule of their own, nobody looks into
them."""

NO_IO = {
    "asyncio",
    "socket",
    "aiohttp",
    "async_timeout",
    "ifaddr",
    "ssl",
    "selectors",
    "threading",
    "http",
    "urllib.request",
}
FOREIGN = {"aiohttp": {"upnp"}, "lxml": {"upnp", "testing"}, "ifaddr": {"net"}, "yarl": {"upnp"}}
"""Libraries, and the only rooms that use them."""


def room_of(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"))


@cache
def imports_of(module: Path) -> set[str]:
    """Return the full names of all modules that a module imports, wherever in it the import stands."""
    package = ["aioigd", *module.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found.add(name)
            if name == "aioigd" or (node.level and not node.module):
                found.update(f"{name}.{alias.name}" for alias in node.names)
    return found


def rooms_imported_by(module: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(module) if name.startswith("aioigd.")}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_rooms_below_it(module: Path) -> None:
    room = room_of(module)
    if room in ("cli", "__main__"):
        return
    assert rooms_imported_by(module) <= MAY_IMPORT[room]


def test_every_room_is_in_the_plan() -> None:
    assert {room_of(module) for module in MODULES} <= MAY_IMPORT.keys() | {"cli", "__main__"}


FLOORS_OF_UPNP = (
    {"wire"},
    {"net"},
    {"fallback", "reading_plan", "retry", "search_schedule"},
    {"soap_client"},
    {"list_mappings", "probe", "event_subscription"},
    {"delete_mapping", "description_reads"},
    {"search", "aftermath"},
    {"add_mapping", "sibling_services"},
    {"pinholes", "wan_status", "add_any_mapping"},
    {"backend"},
    {"reboot"},
    {"driver"},
)
"""The modules of upnp/, from the lowest floor to the highest: none imports from its own floor or from above."""


def module_name(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(module: Path, known: Collection[str]) -> set[str]:
    """The modules of the package that a module imports; a name out of a module stands for the module."""
    package = ["aioigd", *module.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            members = {f"{name}.{alias.name}" for alias in node.names} & set(known)
            found |= members or ({name} & set(known))
    return found - {module_name(module)}


def test_there_is_no_circle_of_imports() -> None:
    known = {module_name(module) for module in MODULES}
    left = {module_name(module): imported_modules(module, known) for module in MODULES}
    while free := {name for name, imported in left.items() if not imported & left.keys()}:
        left = {name: imported for name, imported in left.items() if name not in free}
    assert not left, f"these import each other: {sorted(left)}"


def assert_floors(room: str, floors: Sequence[Collection[str]]) -> None:
    """Check that no module of a room imports from its own floor or from above."""
    floor_of = {name: number for number, floor in enumerate(floors) for name in floor}
    known = {module_name(module) for module in MODULES}
    for module in MODULES:
        parts = module.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != room or parts[1] == "__init__":
            continue
        below = {name.split(".")[2] for name in imported_modules(module, known) if name.startswith(f"aioigd.{room}.")}
        assert all(floor_of[name] < floor_of[parts[1]] for name in below - {parts[1]}), module


def test_the_modules_of_upnp_stand_on_floors() -> None:
    assert_floors("upnp", FLOORS_OF_UPNP)


FLOORS_OF_PCP = (
    {"wire"},
    {"epoch", "client", "nonce", "results"},
    {"state"},
    {"datagram_backend"},
    {"pcp_backend", "nat_pmp_backend", "search", "announcements"},
    {"driver"},
)
"""The modules of pcp/, likewise."""


def test_the_modules_of_pcp_stand_on_floors() -> None:
    assert_floors("pcp", FLOORS_OF_PCP)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_test_bench_shares_codecs_with_the_library_and_no_decisions(module: Path) -> None:
    if room_of(module) == "testing":
        known = {module_name(each) for each in MODULES}
        shared = {name for name in imported_modules(module, known) if name.startswith(("aioigd.upnp", "aioigd.pcp"))}
        assert all(name.split(".")[2:3] == ["wire"] for name in shared), shared


def test_only_the_mapper_imports_a_driver() -> None:
    importers = {
        module.stem
        for module in MODULES
        if {"upnp", "pcp"} & rooms_imported_by(module) and room_of(module) not in ("upnp", "pcp", "testing")
    }
    assert importers == {"mapper"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_protocol_and_words_do_no_io(module: Path) -> None:
    if room_of(module) in WORDS or "wire" in module.relative_to(PACKAGE).parts:
        assert not imports_of(module) & NO_IO


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_foreign_libraries_stay_in_their_rooms(module: Path) -> None:
    for name in imports_of(module):
        rooms = FOREIGN.get(name.split(".")[0])
        assert rooms is None or room_of(module) in rooms


def test_an_epoch_is_judged_without_io() -> None:
    module = PACKAGE / "pcp" / "epoch.py"
    assert not imports_of(module) & (NO_IO | {"logging", "time"})


def test_what_to_do_after_a_failure_is_decided_without_io() -> None:
    for name in ("fallback", "retry"):
        module = PACKAGE / "upnp" / f"{name}.py"
        assert not imports_of(module) & (NO_IO | {"logging"})
        assert rooms_imported_by(module) <= {"errors", "models", "upnp"}


@pytest.mark.parametrize(
    "module",
    [path for path in MODULES if room_of(path) == "cli"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_command_uses_public_names_only(module: Path) -> None:
    public = {"aioigd": {*aioigd.__all__, "__version__"}, "aioigd.testing": set(aioigd.testing.__all__)}
    public["aioigd.text"] = {"printable"}
    public["aioigd.results"] = {"PROTOCOL_NAMES"}
    public["aioigd.net.interfaces"] = {"all_addresses"}
    public["aioigd.net.guard"] = {"check_destination"}  # what the doctor sends has to stay on loopback, too
    package = ["aioigd", *module.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.partition(".")[0] == "aioigd"]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            is_ours = source.partition(".")[0] == "aioigd"
            if is_ours and not f"{source}.".startswith("aioigd.cli."):
                assert {alias.name for alias in node.names} <= public.get(source, set()), source


def test_importing_the_package_loads_neither_its_extras_nor_its_test_bench() -> None:
    heavy = ("aioigd.testing", "aioigd.cli", "click", "rich", "pytest", "hypothesis", "uvloop")
    program = f"import sys, aioigd; print([name for name in sys.modules if name.startswith({heavy!r})])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
