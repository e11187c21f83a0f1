"""The ground: settings, the REST envelope, the outbound client, and what every app stands on. Imports no app."""
