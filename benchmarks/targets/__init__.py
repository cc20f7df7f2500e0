"""The goals of the project, one module for each kind; each has a ``measure`` that returns figures."""
