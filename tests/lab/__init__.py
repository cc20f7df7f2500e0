"""Tests against a real IGD (miniupnpd) behind real NAT, in network namespaces of their own."""
