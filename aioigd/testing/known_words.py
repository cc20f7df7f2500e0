"""Which words tell nothing about anybody? Those of the standards, and those that firmware and web servers use.

A recording keeps these words and replaces the others (see :mod:`aioigd.testing.scrubbing`). No word is in here that a
person would choose to be recognized by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from .errors import ERROR_DESCRIPTIONS
from .service_specs import SERVICES

__all__ = ["has_known_part", "is_known"]

_WORDS: Final = """
a an and any are as at be been by but can cannot could does for from has have if in into is it its must no not of off
on only or our out over see should such than that the their then there these this those to too under up was were
while will with without you your again all already always also because before behind between both each either else
even ever every first last later least less many more most much never new next none nothing now old once one other
same several some still two until very what when where which who whose why

http https ftp www com net org html htm xml xhtml json txt text plain css js javascript image images img png gif jpg
jpeg ico icon icons iconlist mimetype width height depth url uri urn uuid utf iso ascii latin unicode charset encoding
version standalone doctype entity element cdata xmlns xsi xsd dt datatypes schema schemas schemalocation namespace
8859 1250 1251 1252 1998 1999 2000 2001 2003 10646 16 32
get post put head options subscribe unsubscribe notify search m-search delete patch trace connect
accept age allow authorization basic digest bearer cache control connection content cookie date disposition
encoding etag expires ext host keep alive language last length location man max min modified mx nt nts opt origin
pragma proxy range realm referer retry after sameorigin security server session sid soapaction st status strict
te timeout trailer transfer type upgrade user agent usn vary via warning www-authenticate x xss frame nosniff
close chunked gzip deflate identity compress br bytes seconds must-revalidate revalidate private public store
transform application octet stream form data multipart boundary callback seq nls 01 bootid configid nextbootid
searchport securelocation al
mon tue wed thu fri sat sun monday tuesday wednesday thursday friday saturday sunday jan feb mar apr may jun jul aug sep
oct nov dec january february march april june july august september october november december gmt utc
ok error errors found moved permanently temporary redirect bad request requested unauthorized forbidden method
allowed acceptable gone required internal implemented service unavailable exceeded large long unsupported media
expectation failed precondition payload entity invalid unknown reason document resource page body title h1 h2 h3 hr p br
b i pre center table tr td th div span meta link script style lang en us head font color bgcolor align

upnp ssdp soap gena igd ssdp:all alive byebye update discover rootdevice device devices devicetype devicelist services
servicelist servicetype serviceid service id scpd scpdurl controlurl eventsuburl presentationurl urlbase urlbases
control event events eventing evt subscription sub subscribe presentation root desc description describe friendlyname
name names manufacturer manufacturerurl model models modelname modelnumber modeldescription modelurl number serial
serialnumber upc udn specversion spec major minor schemas-upnp-org upnp-org dslforum dslforum-org microsoft-com
schemas-microsoft-com broadband forum xmlsoap microsoft
internet gateway internetgatewaydevice wandevice wanconnectiondevice landevice wlanaccesspointdevice wfadevice basic
conn wan lan wlan wlanconfiguration wanipconnection wanpppconnection wanipconn wanpppconn wanip wanipv wanippppconn
wanippconn wancommonifc wancommoninterfaceconfig wancommon wanipv6firewallcontrol wanipv wandslconnection
wandsllinkconfig wandsllinkc wanethlinkconfig wanethlinkc wanethernetlinkconfig wanpotslinkconfig
wancablelinkconfig layer3forwarding l3forwarding l3f l3forwarding1 l3forwarding11 lanhostconfigmanagement
lanhostconfig deviceprotection deviceconfig deviceinfo timeserver time ipconn pppconn ipcn pppcn cfg conf config
configuration configure cmnif cmnicfg cmn ifc ifcfg ifconfig ipc ppp pppoe pppoa pptp l2tp ip ipv4 ipv6 ip6 ip4 ipv
6fc ip6fc wanip6fc wanipv6fc tcp udp icmp arp dhcp dns nat rsip cgnat firewall pinhole pinholes port ports mapping
mappings forward forwarding default static dynamic link local address addresses external client clients remote hosts
protocol proto enabled enable disabled disable true false yes lease duration permanent unlimited index entry entries
array table full list listing lists size count total bytes packets sent received rate upstream downstream bit bits
access physical up down connected connecting connectionstatus disconnected disconnecting pending pendingdisconnect
unconfigured initializing authenticating routed bridged ip_routed uptime interface interfaces eth ethernet dsl adsl
vdsl cable pots docsis fiber fibre gpon ont onu cpe modem mode bridge router routers switch hub repeater extender
wifi wireless mesh home office voip phone usb storage print printer camera tv media renderer lamp light demo test
emulated emulator example sample generic standard compliant compatible company inc ltd corp corporation co gmbh ag
technologies technology systems system communications networks network networking electronics
action actions actionlist actionname argument arguments argumentlist argumentname direction retval
relatedstatevariable statevariable statetable servicestatetable statevariables variable variables varname sendevents
multicast datatype defaultvalue allowed allowedvalue allowedvaluelist allowedvaluerange minimum maximum step value
values string boolean bool int uint ui1 ui2 ui4 i1 i2 i4 r4 r8 float uri bin base64 hex char datetime
arg related state send property propertyset param params parameter parameters
envelope env encodingstyle fault faultcode faultstring faultactor detail upnperror errorcode errordescription code
response result results reply query queryresponse returnvalue return query_state u m s e soapenv soap-env
addportmapping addanyportmapping deleteportmapping getgenericportmappingentry getspecificportmappingentry success
successful done ready not_found nosuchentry conflict conflicts conflictinmappingentry duplicate exists existing
mismatch wildcard wildcards wildcardnotpermittedinsrcip srcip extport intport src dst source destination permitted
permit supports supported support samebothports portrange startport endport manage managed max_ports
onlypermanentleasesupported onlypermanentleasessupported onlypermanent leases permanentleasesonly optional
authorized notauthorized authorization unauthorised denied refused refuse rejected reject missing wrong empty
please try use using used available busy limit limited exceeds exceeded range length short memory

admin api app apps bin cgi cgibin ctl ctrl ctlt dev etc gena igd igd1 igd2 igdupnp gatedesc gatewaydesc igddesc
igdconnscpd igddev igddevicedesc rootdesc devicedesc devdesc description devicedescription dyndev info wfa
wfadev wfawlan wps main index web webapp app desc1 desc2 device1 service1 wanipcn wanpppcn wancfg wanif l3frwd
l3fwd lanhcm osinfo tr64desc tr64 tr069 tr igdicfgscpd igddslscpd igd2icfgscpd igd2ipv6fwcscpd fboxdesc igd2desc any
anyscpd allegro rompager x_ common ws rest rpc sys tmp upnphost upnpdev upnphost_udhisapi udhisapi cd icfg ifcg dummy

linux unix windows macos darwin freebsd openbsd netbsd openwrt vxworks ecos rtos threadx freertos android busybox
microsoft nt winnt posix mips mipsel arm armv7 aarch64 x86 x64 i686 ipos
miniupnpd miniupnpc miniupnp minissdpd minidlna upnpd libupnp pupnp portable sdk gupnp ipigd igdd linuxigd
intel realtek broadcom ralink mediatek qualcomm marvell atheros lantiq infineon conexant nginx apache lighttpd
micro httpd mini_httpd boa goahead webs rompager mongoose tiny thttpd uhttpd jetty twisted python aiohttp aioigd testing
avm fritz fritzbox fritz.box igdupnp dd wrt ddwrt tomato asuswrt merlin pfsense opnsense vyos mikrotik routeros
ubiquiti unifi edgeos edgerouter openwrt lede turris gargoyle
netgear asus asustek linksys cisco belkin dlink link tplink archer deco zyxel huawei zte technicolor thomson
speedtouch sagemcom sagem livebox arris motorola ubee hitron compal arcadyan speedport speedport easybox
connectbox technicolor draytek vigor bintec lancom buffalo airstation nec aterm sercomm askey actiontec verizon
bt sky xiaomi miwifi redmi tenda mercusys keenetic apple airport extreme express google nest eero amazon sonos
synology qnap fritzos dsl box hub

vendor vendors hardware software firmware product display room zone household group
pin password passwd passphrase pass pwd key keys psk wep wpa ssid bssid token login username userid credential secret
email mail imei imsi iccid msisdn latitude longitude geo street city zip postal
"""

_SHORTEST: Final = 6
"""Letters at the beginning or end of a word that are no chance."""
_LONGEST: Final = 60

_PARTS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
"""The words that are written together: ``rootDesc``, ``WANIPConn1``."""


def _words_of_the_standards() -> Iterator[str]:
    """Yield the names in the services of a gateway, the texts of errors and the reason phrases of HTTP."""
    texts = [*ERROR_DESCRIPTIONS.values(), *(status.phrase for status in HTTPStatus)]
    for spec in SERVICES.values():
        texts.append(spec.name)
        for action in spec.actions.values():
            texts += [action.name, f"{action.name}Response"]
            texts.extend(each.name for each in (*action.inputs, *action.outputs))
        for name, variable in spec.variables.items():
            texts += [name, *variable.allowed]
    for text in texts:
        for word in re.findall(r"[A-Za-z0-9]+", text):
            yield word
            yield from (part for part in _PARTS.findall(word) if len(part) > 2 and part.isalpha())


_KNOWN: Final = frozenset(
    part for word in (_WORDS, *_words_of_the_standards()) for part in re.findall(r"[a-z0-9]+", word.lower())
)


def is_known(word: str) -> bool:
    """Return whether a word (letters and digits) is one of these, or several of them written together."""
    if word.lower() in _KNOWN:
        return True
    parts = _PARTS.findall(word)
    return (
        1 < len(parts) < 9
        and "".join(parts) == word
        and not parts[0].isdigit()
        and all(len(part) < 3 if part.isdigit() else len(part) > 1 and part.lower() in _KNOWN for part in parts)
    )


def has_known_part(word: str) -> bool:
    """Return whether one of the words that are written together is known: ``NewExternalIPAdress``, ``isenabled``."""
    if is_known(word) or any(len(part) > 2 and part.lower() in _KNOWN for part in _PARTS.findall(word)):
        return True
    lower = word[:_LONGEST].lower()
    return any(lower[:cut] in _KNOWN or lower[-cut:] in _KNOWN for cut in range(_SHORTEST, len(lower)))
