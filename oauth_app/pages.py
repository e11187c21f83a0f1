"""What people read after a consent: one page for each outcome, in plain words. No models, no request, no markup.

Two people read such a page. The first came from a link, wants to know what happened and what to do, and knows nothing
of protocols. The second sent that link and runs the vault: the `operator_notes` are theirs, and may use the words of
the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_CONNECTED = ("connected", "connected_without_refresh_token")


class Tone(StrEnum):
    """How an outcome feels. The page shows it as a colour and as a sign, and its heading says it."""

    SUCCESS = "success"
    WARNING = "warning"
    PROBLEM = "problem"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Page:
    """One outcome, ready to be rendered. Every text is plain text: the template escapes it."""

    code: str
    status: int
    tone: Tone
    title: str
    heading: str
    message: str
    next_steps: tuple[str, ...]
    details: tuple[tuple[str, str], ...] = ()
    provider_said: str | None = None
    operator_notes: tuple[str, ...] = ()

    @property
    def is_connected(self) -> bool:
        return self.code in _CONNECTED


def page_for(
    code: str,
    *,
    secret_name: str | None = None,
    provider: str | None = None,
    environment: str | None = None,
    connected_as: str | None = None,
    provider_said: str | None = None,
    reason: str | None = None,
) -> Page:
    """The page of one outcome. `provider` is a display name, such as "GitHub". An unknown code raises `KeyError`.

    Callers may pass all they know; what the reader of this outcome should not see is left out. Where nothing proves
    that the reader is the one who was invited, the page names no connection. It names the account only where one was
    connected just now, and quotes the provider only where the provider was the one who answered: anybody can write an
    address with words of their own in it.
    """
    copy = _PAGES[code]
    name = _shown(provider, 80)
    words = {
        "provider": _isolated(name) if name else "the provider",
        "Provider": _isolated(name) if name else "The provider",
        "account": f"{_isolated(name)} account" if name else "account",
    }
    account = _shown(connected_as, 255) if code in _CONNECTED else ""
    steps = copy.next_steps
    if account:
        steps = (
            *steps,
            "The account is named below. If it is not the one you meant, tell the person who sent you the link.",
        )
    details = (
        ("Account", account),
        ("Provider", name if copy.names_connection else ""),
        ("Connection", _shown(secret_name, 255) if copy.names_connection else ""),
        ("Environment", _shown(environment, 255) if copy.names_connection else ""),
        ("Reason", _shown(reason, 300)),
    )
    return Page(
        code=code,
        status=copy.status,
        tone=copy.tone,
        title=copy.title,
        heading=copy.heading.format(**words),
        message=copy.message.format(**words),
        next_steps=tuple(step.format(**words) for step in steps),
        details=tuple((label, value) for label, value in details if value),
        provider_said=(_shown(provider_said, 500) or None) if copy.quotes_provider else None,
        operator_notes=copy.operator_notes,
    )


# Controls, halves of a surrogate pair (which no UTF-8 page can carry), and the marks that turn the direction of all
# text after them. Joiners stay: Persian, Hindi and emoji need them.
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


def _shown(text: str | None, most: int) -> str:
    """Somebody else's words as one line of at most `most` characters; what cannot be shown becomes U+FFFD."""
    line = _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join((text or "").split()))
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _isolated(text: str) -> str:
    """`text` for the middle of a sentence: what `<bdi>` does in markup, for names that may be written right to left."""
    return text if text.isascii() else f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """What is the same whenever this outcome happens. `{provider}`, `{Provider}` and `{account}` are filled in."""

    status: int
    tone: Tone
    title: str
    heading: str
    message: str
    next_steps: tuple[str, ...]
    operator_notes: tuple[str, ...] = ()
    names_connection: bool = True
    quotes_provider: bool = False


_CLOSE = "You can close this page."
_OPEN_AGAIN = "Open the link you were given once more. If it no longer works, ask the person who sent it for a new one."
_ASK_FOR_LINK = "Ask the person who sent you the link for a new one."
_SHOW_PAGE = "Show this page to the person who sent you the link."
_IF_AGAIN = "If it happens again, show this page to the person who sent you the link."
_NOT_YOU = "If you did not start this yourself, close this page. Nothing was connected."
_HOW_TO_LINK = "Make a new consent link for this secret in the admin, or with POST /v1/secrets/:id/oauth2/authorize."

# 502 and 504 are never used: proxies put a page of their own in the place of ours, and nobody would learn what to do.
_PAGES: dict[str, _Copy] = {
    "connected": _Copy(
        status=200,
        tone=Tone.SUCCESS,
        title="Connected",
        heading="Your {account} is connected",
        message="Thank you. The access you gave is kept safe here, and we keep it working.",
        next_steps=(
            "There is nothing more to do. " + _CLOSE,
            "If you change your mind, you can take the access back in your settings at {provider}, at any time.",
        ),
    ),
    "connected_without_refresh_token": _Copy(
        status=200,
        tone=Tone.WARNING,
        title="Connected for now",
        heading="Your {account} is connected, for now",
        message="It works from this moment. But the access that {provider} gave cannot be renewed: when it runs out, "
        "somebody has to agree again.",
        next_steps=("You have done your part. " + _SHOW_PAGE,),
        operator_notes=(
            "The provider sent no refresh token. The connection works until the access token expires; then a person "
            "must consent again.",
            "To avoid that, ask the provider for offline access. Some want access_type=offline among the secret's "
            "authorize_params, others the scope offline_access. Then send a new consent link.",
        ),
    ),
    "denied": _Copy(
        status=200,
        tone=Tone.NEUTRAL,
        title="Not connected",
        heading="Nothing was connected",
        message="{Provider} told us that access was not given. That is all right: nothing was shared, and nothing has "
        "changed.",
        next_steps=(
            "If that is what you wanted, you can close this page.",
            "If you change your mind, ask the person who sent you the link for a new one.",
        ),
        quotes_provider=True,
    ),
    "expired": _Copy(
        status=410,
        tone=Tone.NEUTRAL,
        title="Time ran out",
        heading="The time for this ran out",
        message="To keep things safe, there are 15 minutes to finish. They have passed, so nothing was connected. It "
        "is quick to start again.",
        next_steps=(_OPEN_AGAIN,),
        operator_notes=(_HOW_TO_LINK,),
    ),
    "interrupted": _Copy(
        status=503,
        tone=Tone.PROBLEM,
        title="It broke off",
        heading="The last step broke off",
        message="You did everything right. But we were interrupted before the connection was stored, so nothing was "
        "connected. Please start again.",
        next_steps=(_OPEN_AGAIN,),
        operator_notes=(_HOW_TO_LINK,),
    ),
    "already_used": _Copy(
        status=409,
        tone=Tone.NEUTRAL,
        title="Already done",
        heading="This was already done",
        message="We have had this answer from {provider} before. Reloading a page or going back can send it again. "
        "Nothing happened a second time.",
        next_steps=(
            "If you saw that your account is connected, all is well. " + _CLOSE,
            "If you are not sure, ask the person who sent you the link whether it worked.",
        ),
    ),
    "in_progress": _Copy(
        status=409,
        tone=Tone.NEUTRAL,
        title="One moment",
        heading="One moment, this is being finished",
        message="The same answer is being handled at this moment, perhaps in another tab. It takes a few seconds.",
        next_steps=("Wait a few seconds, then reload this page. It will show how it went.",),
    ),
    "unknown_state": _Copy(
        status=400,
        tone=Tone.PROBLEM,
        title="Not recognised",
        heading="We do not recognise this answer",
        message="It does not belong to anything that was started here, or it is too old. We did not use it, and "
        "nothing was connected.",
        next_steps=("Start again from the link you were given.", _NOT_YOU),
        names_connection=False,
    ),
    "wrong_browser": _Copy(
        status=403,
        tone=Tone.PROBLEM,
        title="Another browser",
        heading="Please finish in the browser you started in",
        message="This was started in another browser or on another device, or cookies are blocked here. To protect "
        "you, we take an answer only where we asked for it. Nothing was connected.",
        next_steps=(
            "Open the link you were given again, and stay in the same browser until the end.",
            "If that does not help, allow cookies for this site and try once more.",
            _NOT_YOU,
        ),
        names_connection=False,
    ),
    "wrong_secret": _Copy(
        status=400,
        tone=Tone.PROBLEM,
        title="Wrong address",
        heading="This answer belongs to another connection",
        message="{Provider} sent you back to an address that is meant for something else. We did not use the answer, "
        "and nothing was connected.",
        next_steps=("Start again from the link you were given.", _IF_AGAIN),
        operator_notes=(
            "Every secret has a redirect URI of its own. Check that the one registered at the provider is, to the "
            "letter, the one the vault shows for this secret.",
        ),
        names_connection=False,
    ),
    "wrong_issuer": _Copy(
        status=400,
        tone=Tone.PROBLEM,
        title="Stopped to be safe",
        heading="We stopped this to be safe",
        message="We asked {provider}, but the answer says that it comes from somebody else. This can be a slip in the "
        "setup, or somebody trying to mislead us both. We did not use the answer, and nothing was connected.",
        next_steps=("Please do not try again yet.", _SHOW_PAGE),
        operator_notes=(
            "The issuer named in the answer is not the one this secret expects. A mix-up attack looks like this; so "
            "does a wrong issuer or authorization URL in the secret. Check both, and the audit log, before you send a "
            "new link.",
        ),
    ),
    "provider_error": _Copy(
        status=400,
        tone=Tone.PROBLEM,
        title="Not connected",
        heading="{Provider} could not finish this",
        message="It sent you back with an error instead of access. Nothing was connected, and nothing is lost.",
        next_steps=("Try once more from the link you were given.", _IF_AGAIN),
        operator_notes=(
            "Usual causes: a scope that the provider does not allow, an app that still waits for its approval, or a "
            "redirect URI that is not registered there.",
        ),
        quotes_provider=True,
    ),
    "exchange_failed": _Copy(
        status=400,
        tone=Tone.PROBLEM,
        title="Not connected",
        heading="The last step did not work",
        message="You did everything right. But {provider} did not accept the last step, which happens between it and "
        "us. Nothing was connected. It needs a change in the setup, and not by you.",
        next_steps=(_SHOW_PAGE, "Once it is fixed, you will get a new link."),
        operator_notes=(
            "The provider refused to exchange the answer for tokens. Compare the client ID, the client secret and the "
            "redirect URI with what is registered there: one of them probably differs.",
            "The redirect URI must be the same to the letter. If all three agree, check the secret's "
            "token_auth_method.",
        ),
        quotes_provider=True,
    ),
    "provider_unavailable": _Copy(
        status=503,
        tone=Tone.WARNING,
        title="Try again soon",
        heading="{Provider} cannot be reached at the moment",
        message="It did not answer, or not in a way that we understand. Nothing was connected. This usually passes "
        "by itself.",
        next_steps=("Try again in a few minutes. " + _OPEN_AGAIN,),
        operator_notes=(
            "If it stays like this, look at the provider's status page, and check the secret's token URL.",
        ),
        quotes_provider=True,
    ),
    "start_used": _Copy(
        status=410,
        tone=Tone.NEUTRAL,
        title="Link already used",
        heading="This link has done its job",
        message="It works for the first connection only, and that has been made.",
        next_steps=(
            "If you made it, there is nothing more to do. " + _CLOSE,
            "To connect again, or with another account, ask the person who sent you the link for a new one.",
        ),
        operator_notes=(
            _HOW_TO_LINK,
            "If nobody you know made this connection, check in the admin which account is connected.",
        ),
    ),
    "start_expired": _Copy(
        status=410,
        tone=Tone.NEUTRAL,
        title="Link too old",
        heading="This link is too old",
        message="It worked for 24 hours, and they have passed. Nothing was connected.",
        next_steps=(_ASK_FOR_LINK,),
        operator_notes=(_HOW_TO_LINK,),
    ),
    "start_disabled": _Copy(
        status=403,
        tone=Tone.NEUTRAL,
        title="Another link needed",
        heading="You need another link",
        message="This address cannot be used to begin with. There are links made for that, and you need one of those.",
        next_steps=(_ASK_FOR_LINK,),
        operator_notes=("This account has turned off starts from the redirect URI. " + _HOW_TO_LINK,),
    ),
    "link_used": _Copy(
        status=410,
        tone=Tone.NEUTRAL,
        title="Link already used",
        heading="This link has done its job",
        message="Somebody finished with it, so it works no more. Nothing has changed by opening it again.",
        next_steps=(
            "If that was you, there is nothing more to do. " + _CLOSE,
            "To connect again, or with another account, ask the person who sent you the link for a new one.",
        ),
        operator_notes=(
            _HOW_TO_LINK,
            "If nobody you know finished this, check in the admin which account is connected.",
        ),
    ),
    "link_replaced": _Copy(
        status=410,
        tone=Tone.NEUTRAL,
        title="Newer link",
        heading="There is a newer link",
        message="This one was replaced, so it works no more. Nothing was connected.",
        next_steps=("Use the newest link you were given.", "If you have no other, ask the person who sent it for one."),
        operator_notes=("Each new link for a connection voids the one before. " + _HOW_TO_LINK,),
    ),
    "link_expired": _Copy(
        status=410,
        tone=Tone.NEUTRAL,
        title="Link too old",
        heading="This link is too old",
        message="To keep things safe it worked for 15 minutes, and they have passed. Nothing was connected.",
        next_steps=(_ASK_FOR_LINK,),
        operator_notes=(_HOW_TO_LINK,),
    ),
    "too_many_open": _Copy(
        status=429,
        tone=Tone.WARNING,
        title="Please wait",
        heading="Please wait 15 minutes",
        message="This was started 20 times and not finished yet, so no new attempt can begin for now. Nothing is lost.",
        next_steps=(
            "If you still have a tab open from before, you can finish there.",
            "Otherwise wait 15 minutes, then open the link again.",
        ),
        operator_notes=(
            "If these attempts are not yours, somebody else has the link: the audit log shows from where.",
        ),
    ),
    "not_browser_grant": _Copy(
        status=400,
        tone=Tone.NEUTRAL,
        title="Nothing to do",
        heading="There is nothing to do here",
        message="This connection works by itself and needs nobody's agreement.",
        next_steps=(_CLOSE, "If somebody asked you to open it, let them know that it is not needed."),
        operator_notes=(
            "The secret uses the client credentials or the password grant, which need no consent. Its status is in the "
            "admin.",
        ),
    ),
    "not_found": _Copy(
        status=404,
        tone=Tone.NEUTRAL,
        title="Not found",
        heading="There is nothing at this address",
        message="A part of the link may be missing, or what it led to was removed.",
        next_steps=(
            "Check that you have the whole link: a line break in a message can cut it in two.",
            "If it is complete, ask the person who sent it for a new one.",
        ),
        names_connection=False,
    ),
    "superseded": _Copy(
        status=409,
        tone=Tone.NEUTRAL,
        title="Already taken over",
        heading="Something newer came first",
        message="While you were on your way, somebody else finished this, or a newer link was made. What you did here "
        "was not used, and changed nothing.",
        next_steps=(
            "If you have a newer link, use that one.",
            "If not, ask the person who sent you the link whether something is left to do.",
        ),
    ),
    "vault_unavailable": _Copy(
        status=503,
        tone=Tone.WARNING,
        title="Try again soon",
        heading="We cannot continue at the moment",
        message="A part of our own system cannot be reached. This has nothing to do with you, and nothing is lost.",
        next_steps=(
            "Wait a minute, then reload this page.",
            "If that does not help, open the link you were given again.",
        ),
    ),
}
