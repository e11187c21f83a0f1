"""Encryption at rest: root keys wrap data keys, data keys seal values, and a sealed value opens in its own place only."""
