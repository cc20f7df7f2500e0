"""What is compared: aioigd, what people use today, and two floors; each in a process of its own, asked the same way."""
