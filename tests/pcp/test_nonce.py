"""Nonces are the same again for the same mapping, and for no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aioigd.pcp import nonce
from aioigd.pcp.nonce import default_secret, derive_nonce

MAPPING = ("10.0.0.1", "10.0.0.2", "TCP", 80)
OTHERS = [
    ("10.0.0.3", "10.0.0.2", "TCP", 80),
    ("10.0.0.1", "10.0.0.3", "TCP", 80),
    ("10.0.0.1", "10.0.0.2", "UDP", 80),
    ("10.0.0.1", "10.0.0.2", "TCP", 81),
]


def test_it_is_known_again() -> None:
    """A change of this value makes mappings of the version before unknown to their programs."""
    assert derive_nonce(b"secret", *MAPPING).hex() == derive_nonce(b"secret", *MAPPING).hex()
    assert len(derive_nonce(b"secret", *MAPPING)) == 12


@pytest.mark.parametrize("other", OTHERS)
def test_another_mapping_has_another_one(other: tuple[str, str, str, int]) -> None:
    assert derive_nonce(b"secret", *other) != derive_nonce(b"secret", *MAPPING)


def test_another_secret_makes_another_one() -> None:
    assert derive_nonce(b"another", *MAPPING) != derive_nonce(b"secret", *MAPPING)


def test_the_secret_of_a_user_is_the_same_in_every_process() -> None:
    if not any(path.exists() and path.read_text().strip() for path in nonce._MACHINE_IDS):
        pytest.skip("this machine has no id")
    program = "from aioigd.pcp.nonce import default_secret; print(default_secret().hex())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == default_secret().hex()


def test_without_a_machine_id_it_is_random_for_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    monkeypatch.setattr(nonce, "_MACHINE_IDS", (tmp_path / "missing", empty))
    default_secret.cache_clear()
    try:
        first = default_secret()
        assert default_secret() == first
        default_secret.cache_clear()
        assert default_secret() != first
    finally:
        default_secret.cache_clear()


def test_machines_with_one_user_differ_and_so_do_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = set()
    for machine in ("a" * 32, "b" * 32):
        path = tmp_path / machine
        path.write_text(f"{machine}\n")
        monkeypatch.setattr(nonce, "_MACHINE_IDS", (path,))
        for user in (1000, 1001):
            monkeypatch.setattr("os.getuid", lambda user=user: user)
            default_secret.cache_clear()
            secrets.add(default_secret())
    default_secret.cache_clear()
    assert len(secrets) == 4
