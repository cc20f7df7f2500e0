"""Everything that is checked before a change lands; ``nox`` runs it all, ``nox -s NAME`` one part of it."""

import os
import shutil

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs", "package"]


def groups(*names: str) -> list[str]:
    """Return the requirements of some dependency groups of pyproject.toml."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *names)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format and style."""
    session.install(*groups("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly; and that those who install the package see them."""
    session.install("-e", ".[cli]", *groups("types", "test"))
    session.run("mypy")
    session.chdir(session.create_tmp())
    session.run("mypy", f"--config-file={os.devnull}", "--strict", "--no-incremental", "-c", TYPED_PROGRAM)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests and measure branch coverage; with root and miniupnpd also against the real router."""
    session.install("-e", ".[cli]", *groups("test"))
    session.run("pytest", "-q", "--benchmark-disable", "benchmarks/test_codecs.py")
    session.run("coverage", "erase")
    try:
        session.run("coverage", "run", "-m", "pytest", *(session.posargs or ["-n", "2"]))
    except CommandFailed:
        # Other work on the machine can break what depends on time; a defect fails again, alone.
        session.warn("some tests failed, and get one more chance, one after another")
        session.run("coverage", "run", "-m", "pytest", "--last-failed", "--last-failed-no-failures", "none")
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report", "--fail-under=95")


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests that take minutes: long fuzzing, many restarts, heavy packet loss."""
    session.install("-e", ".[cli]", *groups("test"))
    session.run("pytest", "-m", "long", "--hypothesis-profile=long", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure aioigd beside its peers, and write docs/benchmarks.md; ``-- --quick`` writes nothing."""
    session.install("-e", ".", *groups("bench"))
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = ["godot3-server", "miniupnpc", "miniupnpd-iptables", "iptables", "nftables", "iproute2"]
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
        session.run(*install, env={"DEBIAN_FRONTEND": "noninteractive"}, external=True)
    session.run("python", "-m", "benchmarks.compare", *(session.posargs or ["--docs", "docs"]))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-e", ".", *groups("docs"))
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, and use the wheel in an environment that has nothing else, then with the extra."""
    session.install("build")
    dist = os.path.abspath(os.path.join(session.create_tmp(), "dist"))
    session.run("python", "-m", "build", "--outdir", dist, ".", silent=True)
    (wheel,) = (name for name in os.listdir(dist) if name.endswith(".whl"))
    session.run("python", "-m", "venv", "--clear", os.path.join(dist, "empty"))
    bin_directory = os.path.join(dist, "empty", "Scripts" if os.name == "nt" else "bin")
    python = os.path.join(bin_directory, "python")
    session.run(python, "-m", "pip", "install", "-q", os.path.join(dist, wheel), external=True)
    session.chdir(dist)
    session.run(python, "-m", "aioigd", "demo", external=True, silent=True)
    session.run(python, "-m", "aioigd", "list", external=True, success_codes=[2], silent=True)
    session.run(python, "-m", "pip", "install", "-q", f"{os.path.join(dist, wheel)}[cli]", external=True)
    session.run(python, "-m", "aioigd", "--help", external=True, silent=True)


TYPED_PROGRAM = """
import aioigd

async def main() -> int:
    async with aioigd.PortMapper() as mapper:
        mapping: aioigd.PortMapping = await mapper.add_port_mapping(8080, proto="TCP")
        return mapping.external_port
"""
