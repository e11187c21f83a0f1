"""Connections to OAuth2 providers, and tokens kept fresh."""
