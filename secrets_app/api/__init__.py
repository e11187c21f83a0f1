"""The REST calls for secrets and collections."""
