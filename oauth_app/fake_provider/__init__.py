"""An OAuth2 provider that does what it is told, faults included: for tests, load runs and rehearsals.

Standard library only, and nothing here knows the product or a test. `behaviour` holds the switches and `shapes` those of
five providers; `issuer` remembers and makes tokens; `consent`, `grants`, `revocation` and `metadata` are the endpoints,
without a socket; `answers` are the faults; `provider` has the plans and the record, `wire` the HTTP under it, `control` the
same switches as JSON, `options` as a command line; `guide` is what people read. `python -m` runs it as a process, and
`manage.py fake_provider` for people.
"""

from .answers import Answer, Drop
from .behaviour import Behaviour, RefreshTokens
from .provider import FakeProvider
from .record import TokenRequest

__all__ = ["Answer", "Behaviour", "Drop", "FakeProvider", "RefreshTokens", "TokenRequest"]
