"""Other people's programs on the lab's hosts, to check against."""

from __future__ import annotations

import shutil

import pytest

from .network import Lab, Place
from .router import Router


def upnpc(lab: Lab, router: Router, *arguments: str, place: Place = "lan") -> str:
    """What Debian's command says; it asks the router of this description URL, without a search."""
    if shutil.which("upnpc") is None:
        pytest.skip("not installed: upnpc")
    return lab.run(place, ["upnpc", "-u", router.location, *arguments]).stdout
