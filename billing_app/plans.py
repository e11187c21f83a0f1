"""The price list: what each plan allows. `None` means unlimited."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """One line of the price list. ``secrets`` counts per mode; ``requests_per_minute`` is a key's limit unless it has its own."""

    name: str
    label: str
    secrets: int | None
    oauth2: bool
    requests_per_minute: int


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("free", "Free", secrets=10, oauth2=False, requests_per_minute=600),
        Plan("starter", "Starter", secrets=50, oauth2=False, requests_per_minute=3_000),
        Plan("pro", "Pro", secrets=500, oauth2=True, requests_per_minute=30_000),
        Plan("enterprise", "Enterprise", secrets=None, oauth2=True, requests_per_minute=300_000),
    )
}
