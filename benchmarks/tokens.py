"""The tokens that benchmarks work with, for the vault's rows and for the provider that renews them."""

from __future__ import annotations

# As long as a signed JWT with a few claims.
ACCESS_TOKEN = "a" * 1000
REFRESH_TOKEN = "r" * 64
