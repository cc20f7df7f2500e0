"""A call on its way to a gateway, by any protocol: shared, queued, sent to the right gateway, undone."""
