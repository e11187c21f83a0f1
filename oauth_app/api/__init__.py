"""The REST calls for OAuth2 secrets and their tokens."""
