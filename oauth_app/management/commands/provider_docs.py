"""`manage.py provider_docs`: the page `docs/providers.md`, written from the presets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Any

from django.core.management.base import BaseCommand

from oauth_app.providers import CUSTOM, PROVIDERS, Provider, ReplayPolicy, Revocation, TokenAuthMethod

INTRODUCTION = """\
# The providers

Written by `manage.py provider_docs > docs/providers.md` from the presets in `oauth_app/providers/`; change those, not this page.

A preset is what the vault knows about a provider without being told. A request can say otherwise, field by field. `custom` is
the provider without a preset: the request names its addresses and takes the same fields.

**Replay** is what happens to a refresh token when a refresh got no readable answer, so that nobody knows whether it was used
up. *safe*: it is sent again at once. *one try*: the valid access token is served to its end, then it is sent once more.
*never*: the valid access token is served to its end, then a person has to consent again. Where the last refresh brought no
new refresh token, sending it again is always safe.

Offline scopes only ask for a refresh token. **Ends the grant** means that to disconnect ends all that this user gave this
client, other connections of the same user included.
"""
COLUMNS = ("name", "provider", "grants", "PKCE", "client authentication", "default scopes", "replay", "revocation")
POLICIES = {ReplayPolicy.SAFE: "safe", ReplayPolicy.ONE_TRY: "one try", ReplayPolicy.NEVER: "never"}
METHODS = {TokenAuthMethod.BASIC: "Basic", TokenAuthMethod.POST: "in the body", TokenAuthMethod.NONE: "none"}
# What the overview, the addresses and the text of a section say already.
SAID_ELSEWHERE = {
    *("name", "label", "source", "note", "variables", "grants", "pkce", "token_auth_method", "default_scopes"),
    *("replay_policy", "revocation", "auth_url", "token_url", "refresh_url"),
}
IN_SECONDS = {"default_expires_in", "refresh_token_idle", "refresh_token_lifetime"}
DAY = 86_400


class Command(BaseCommand):
    help = "Print docs/providers.md, written from the presets."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(render_page(), ending="")


def render_page() -> str:
    """The whole page as Markdown."""
    providers = [provider for name, provider in PROVIDERS.items() if name != CUSTOM]
    sections = "".join(f"\n{section}" for section in map(_section, providers))
    return f"{INTRODUCTION}\n{_overview(providers)}{sections}"


def _overview(providers: list[Provider]) -> str:
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for provider in providers:
        rows.append(
            (
                f"[`{provider.name}`](#{provider.name})",
                provider.label,
                _show(provider.grants),
                "yes" if provider.pkce else "no",
                METHODS[provider.token_auth_method],
                _show(provider.default_scopes) or "none",
                POLICIES[provider.replay_policy],
                _ending(provider.revocation),
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _ending(revocation: Revocation | None) -> str:
    if revocation is None:
        return "no"
    return "yes, ends the grant" if revocation.ends_grant else "yes"


def _section(provider: Provider) -> str:
    lines = [f'<a id="{provider.name}"></a>', "", f"## {provider.label}", ""]
    if provider.note:
        lines += [provider.note, ""]
    lines += [*_addresses(provider), *_variables(provider), *_knobs(provider)]
    lines += ["", f"Checked against [{provider.source}](https://{provider.source}).", ""]
    return "\n".join(lines)


def _addresses(provider: Provider) -> Iterator[str]:
    yield f"- Authorization: `{provider.auth_url}`"
    yield f"- Token: `{provider.token_url}`"
    if provider.refresh_url:
        yield f"- Refresh: `{provider.refresh_url}`"
    if provider.revocation:
        yield f"- Revocation ({provider.revocation.style}): `{provider.revocation.url}`"


def _variables(provider: Provider) -> Iterator[str]:
    for variable in provider.variables:
        default = "required" if variable.default is None else f"`{variable.default}` if not given"
        yield f"- Variable `{variable.name}`, {default}: {variable.meaning}"


def _knobs(provider: Provider) -> Iterator[str]:
    """Whatever else the record says, by its own name: a field that is new to `Provider` is shown without being listed here."""
    for field in fields(provider):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = getattr(provider, field.name)
        if field.name not in SAID_ELSEWHERE and value != default:
            yield f"- `{field.name}`: {_duration(value) if field.name in IN_SECONDS else _show(value)}"


def _duration(seconds: int) -> str:
    return f"{seconds // DAY} days" if seconds % DAY == 0 else f"{seconds} seconds"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"`{key}={item}`" for key, item in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`" if isinstance(value, str) and not isinstance(value, StrEnum) else str(value)
