"""What aioigd costs, measured: see README.md beside this file."""
