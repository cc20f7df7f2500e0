"""The catalogue of quirks: differences of real routers from the standard, each with its reason and source.

Quirks combine freely::

    EmulatedGateway(quirks.refuses_leases, quirks.short_descriptions_only(20), quirks.chunked)

and new ones are made with :func:`aioigd.testing.quirk`, in some ten lines. :data:`CATALOGUE` has them all by name, for
parametrized tests; those of the ``hostile`` family are attacks, and those of the ``pcp`` family change nothing in a
gateway that speaks UPnP only.
"""

from types import MappingProxyType

from ..hooks import Quirk
from . import description, discovery, hostile, http, pcp, soap
from .description import *  # noqa: F403
from .discovery import *  # noqa: F403
from .hostile import *  # noqa: F403
from .http import *  # noqa: F403
from .pcp import *  # noqa: F403
from .soap import *  # noqa: F403

_VARIANTS: tuple[Quirk[...], ...] = (
    discovery.answers_only("ssdp:all"),
    discovery.answers_only("upnp:rootdevice"),
    discovery.answers_only("urn:schemas-upnp-org:device:InternetGatewayDevice:1"),
    http.faults_with_status(400),
    http.wrong_content_type("application/octet-stream"),
    pcp.grants_lifetime(2400),
    pcp.grants_lifetime(7200),
    pcp.grants_lifetime(0xFFFFFFFF),
    soap.absent_delete_is(501),
    soap.list_ends_with(501),
    soap.list_ends_with(714),
    soap.short_descriptions_only(63),
)

CATALOGUE = MappingProxyType(
    {
        **{
            each.name: each
            for module in (discovery, description, http, soap, hostile, pcp)
            for each in vars(module).values()
            if isinstance(each, Quirk)
        },
        **{repr(each): each for each in _VARIANTS},
    }
)
"""Every quirk by its name, with its default parameters, and some again with others."""
