"""How fast the vault is and what it costs, measured on this machine. `docs/benchmarks.md` says how to read the figures."""
