"""The tests of aioigd; each folder mirrors a room of the package."""
