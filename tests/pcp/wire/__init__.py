"""Tests of the codecs: bytes in, values out, nothing else."""
