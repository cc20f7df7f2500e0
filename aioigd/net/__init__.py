"""I/O that does one thing once: no cache, no retry, no policy."""
