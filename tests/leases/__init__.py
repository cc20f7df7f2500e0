"""The leases: mappings that stay."""
