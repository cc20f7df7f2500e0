"""Tests of PCP and NAT-PMP."""
