"""What is in a certificate file: its formats, the private key, and the chain. Knows no model, and runs in a process of its own.

Opening such a file can take any amount of time and memory: a few bytes of it say how often a passphrase is hashed (RFC 8018
§5.2) or how long the primes of a key are, and the library computes for as long, holding the interpreter's lock. So a request
never does it itself: ``__main__`` reads under limits, and what exceeds them is killed.
"""
