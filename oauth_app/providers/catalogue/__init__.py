"""The records of the catalogue, by what the providers are for. Each is one constant; the registry is in `presets`."""
