"""Everything side by side: aioigd, what people use today, and two floors, in one run on one machine."""
