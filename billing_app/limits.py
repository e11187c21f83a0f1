"""What a plan allows, checked. Whoever asks has locked the account, or the answer is stale before it is used."""

from __future__ import annotations

from billing_app.models import Account
from billing_app.plans import PLANS
from knoxcall.api.errors import PlanLimitReached


def check_secret_limit(account: Account, *, used: int) -> None:
    """Raise ``PlanLimitReached`` if ``used`` secrets leave no place for one more."""
    limit = account.secrets_limit
    if limit is None or used < limit:
        return
    raise PlanLimitReached(
        f"The {account.plan.label} plan holds at most {limit} secrets, and {used} are stored.",
        limit={"resource": "secrets", "used": used, "limit": limit, "plan": account.plan.name},
    )


def check_oauth2_allowed(account: Account) -> None:
    """Raise ``PlanLimitReached`` unless the plan has OAuth2 secrets."""
    if account.plan.oauth2:
        return
    able = " or ".join(plan.label for plan in PLANS.values() if plan.oauth2)
    raise PlanLimitReached(
        f"OAuth2 secrets need the {able} plan; this account is on {account.plan.label}.",
        limit={"resource": "oauth2_secrets", "used": 0, "limit": 0, "plan": account.plan.name},
    )
