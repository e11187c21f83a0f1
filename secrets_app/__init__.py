"""The vault, the keys to it, and the record of who used it."""
