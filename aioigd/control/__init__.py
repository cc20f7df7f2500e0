"""Policy: what to do with what came back."""
