"""UPnP IGD: how a gateway is found, and spoken to, by SSDP, SOAP and GENA."""
