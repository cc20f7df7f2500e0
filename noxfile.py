"""Everything that is checked before a change lands; ``nox`` runs it all, ``nox -s NAME`` one part of it.

All checks share one environment, as most of what they need is the same: installing it takes longer than most of them.
"""

import os
import shutil
import sys

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "none"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs", "package"]

SHARED = os.path.abspath(os.path.join(".nox", "checks"))
"""The environment of all checks, but of none that must have an empty one."""
WORKERS = "4"
"""Processes that run tests, for two processors: tests of programs and of the lab wait while others work."""
BIN = "Scripts" if os.name == "nt" else "bin"

_is_set_up = False


def groups(*names: str) -> list[str]:
    """Return the requirements of some dependency groups of pyproject.toml."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *names)


def python(session: nox.Session) -> str:
    """Return the Python of the shared environment, which the first session of a run brings up to date."""
    global _is_set_up
    path = os.path.join(SHARED, BIN, "python")
    session.env["PATH"] = os.pathsep.join([os.path.dirname(path), os.environ.get("PATH", "")])
    session.env["VIRTUAL_ENV"] = SHARED
    if not _is_set_up:
        if not shutil.which(path):
            session.run_install(sys.executable, "-m", "venv", "--clear", SHARED)
        needed = groups("test", "lint", "types", "docs", "package")
        session.run_install(path, "-m", "pip", "install", "-q", "-e", ".[cli]", *needed)
        _is_set_up = True
    return path


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and style."""
    run = python(session)
    session.run(run, "-m", "ruff", "format", "--check", ".")
    session.run(run, "-m", "ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly; and that those who install the package see them."""
    run = python(session)
    session.run(run, "-m", "mypy")
    session.chdir(session.create_tmp())
    session.run(run, "-m", "mypy", f"--config-file={os.devnull}", "--strict", "--no-incremental", "-c", TYPED_PROGRAM)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests and measure branch coverage; with root and miniupnpd also against the real router."""
    run = python(session)
    session.run(run, "-m", "pytest", "-q", "--benchmark-disable", "benchmarks/test_codecs.py")
    session.run(run, "-m", "coverage", "erase")
    session.run(run, "-m", "coverage", "run", "-m", "pytest", *(session.posargs or ["-n", WORKERS]))
    session.run(run, "-m", "coverage", "combine", "-q")
    session.run(run, "-m", "coverage", "report", "--fail-under=95")


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests that take minutes: long fuzzing, all pairs of quirks, many restarts, heavy packet loss."""
    run = python(session)
    session.run(run, "-m", "pytest", "-m", "long", *(session.posargs or ["-n", WORKERS]))


@nox.session(venv_backend="venv")
def bench(session: nox.Session) -> None:
    """Measure aioigd beside its peers, and write docs/benchmarks.md; ``-- --quick`` writes nothing."""
    session.install("-e", ".", *groups("bench"))
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = ["godot3-server", "miniupnpc", "miniupnpd-iptables", "iptables", "nftables", "iproute2"]
        packages += ["natpmp-utils", "python3-libtorrent"]
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
        session.run(*install, env={"DEBIAN_FRONTEND": "noninteractive"}, external=True)
    session.run("python", "-m", "benchmarks.compare", *(session.posargs or ["--docs", "docs"]))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    run = python(session)
    session.run(
        run, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs
    )


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, and use the wheel in an environment that has nothing else, then with the extra."""
    run = python(session)
    dist = os.path.abspath(os.path.join(session.create_tmp(), "dist"))
    shutil.rmtree(dist, ignore_errors=True)
    session.run(run, "-m", "build", "--outdir", dist, ".", silent=True)
    (wheel,) = (name for name in os.listdir(dist) if name.endswith(".whl"))
    session.run(run, "-m", "venv", os.path.join(dist, "empty"))
    python_alone = os.path.join(dist, "empty", BIN, "python")
    session.run(python_alone, "-m", "pip", "install", "-q", os.path.join(dist, wheel))
    session.chdir(dist)
    session.run(python_alone, "-m", "aioigd", "demo", silent=True)
    session.run(python_alone, "-m", "aioigd", "list", success_codes=[2], silent=True)
    session.run(python_alone, "-m", "pip", "install", "-q", f"{os.path.join(dist, wheel)}[cli]")
    session.run(python_alone, "-m", "aioigd", "--help", silent=True)
    session.run(python_alone, "-m", "pip", "install", "-q", "pytest")
    session.run(python_alone, "-m", "pytest", "--aioigd-loopback-only", "--markers", silent=True)


TYPED_PROGRAM = """
import aioigd

async def main() -> int:
    async with aioigd.PortMapper() as mapper:
        mapping: aioigd.PortMapping = await mapper.add_port_mapping(8080, proto="TCP")
        return mapping.external_port
"""
