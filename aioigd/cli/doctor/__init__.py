"""``aioigd doctor``: collect.py finds out how things are, rules.py draws the conclusions, command.py shows them."""
