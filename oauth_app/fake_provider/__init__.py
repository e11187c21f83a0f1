"""An OAuth2 provider that does what it is told, faults included: for tests, load runs and rehearsals.

Standard library only, and nothing here knows a test. `behaviour` holds the switches, `answers` the faults, `protocol`
the rules of OAuth2 without a socket, `provider` the plans and the record, `wire` the HTTP under it, `control` the same
switches as JSON. `python -m` runs it as a process.
"""

from .answers import Answer, Drop
from .behaviour import Behaviour, RefreshTokens
from .provider import FakeProvider
from .record import TokenRequest

__all__ = ["Answer", "Behaviour", "Drop", "FakeProvider", "RefreshTokens", "TokenRequest"]
