"""What happens around every request: its id, who really sent it, and the headers that every answer carries."""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils.cache import patch_cache_control

from knoxcall.api.errors import ApiError, PayloadTooLarge, ValidationFailed, error_response, is_api
from knoxcall.bodies import TooManyBodies, read_body
from knoxcall.context import begin_request, end_request, request_id

logger = logging.getLogger(__name__)

API_VERSION = "2026-08-05"
GetResponse = Callable[[HttpRequest], HttpResponse]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

# Pages: our own style sheet and icon, nothing else. The admin brings scripts and styles of its own, from our origin.
PAGES_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ADMIN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class RequestContextMiddleware:
    """Gives the request its id, taken over from `X-Request-Id` where that is well-formed, and logs one line when it is done.

    The line names the path without its query: an authorization code or a state in there must reach no log.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        offered = request.headers.get("X-Request-Id", "")
        token = request_id.set(offered if _REQUEST_ID.fullmatch(offered) else str(uuid.uuid4()))
        started = time.monotonic()
        begin_request()
        try:
            response = self.get_response(request)
            response["X-Request-Id"] = request_id.get()
            logger.log(
                # Load balancers ask every few seconds.
                logging.DEBUG if request.path == "/healthz" else logging.INFO,
                "%s %s %s %.0f ms",
                request.method,
                request.path,
                response.status_code,
                (time.monotonic() - started) * 1000,
            )
            return response
        finally:
            request_id.reset(token)
            end_request()


class TrustedProxyMiddleware:
    """Takes the caller's address and scheme from `X-Forwarded-*` when, and only when, a trusted proxy speaks.

    Of several addresses the last one that is no trusted proxy counts: everything left of it was written by the caller.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if _is_trusted(request.META.get("REMOTE_ADDR", "")):
            hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
            for hop in reversed(hops):
                if not _is_address(hop):
                    break
                request.META["REMOTE_ADDR"] = hop
                if not _is_trusted(hop):
                    break
            if request.META.get("HTTP_X_FORWARDED_PROTO", "").strip().lower() == "https":
                request.META["wsgi.url_scheme"] = "https"
        return self.get_response(request)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # A zone (fe80::1%eth0) means something on one machine only, and PostgreSQL's inet does not take it.
    return "%" not in text


def _is_trusted(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in settings.KNOXCALL_TRUSTED_PROXIES)


class ApiMiddleware:
    """Refuses a body over the limit before anything reads it, and puts the API's headers on every answer under `/v1`."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not is_api(request):
            return self.get_response(request)
        refusal = _refusal_of_length(request.META.get("CONTENT_LENGTH") or "0")
        response = self.get_response(request) if refusal is None else error_response(refusal)
        response["KnoxCall-Version"] = API_VERSION
        patch_cache_control(response, no_store=True)
        return response


def _refusal_of_length(text: str) -> ApiError | None:
    # Django reads the number again where it reads the body, and there one that is none would be a 500.
    if not (text.isascii() and text.isdigit()):
        return ValidationFailed("Content-Length: Must be a whole number.")
    # int() would take as long as the text is.
    if len(text) > 18 or int(text) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        return PayloadTooLarge()
    return None


class FormMiddleware:
    """Reads a form before its view runs, few at once from one address: whoever sends slowly keeps nobody else waiting."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if is_api(request) or request.method in ("GET", "HEAD"):
            return self.get_response(request)
        try:
            read_body(request, sender=request.META.get("REMOTE_ADDR", ""))
        except (TooManyBodies, PayloadTooLarge) as err:
            return HttpResponse(err.message, status=err.status, content_type="text/plain")
        except UnreadablePostError:
            return HttpResponse("The form broke off.", status=400, content_type="text/plain")
        return self.get_response(request)


class ContentSecurityPolicyMiddleware:
    """Puts a strict policy on every page; the admin's lets it run its own scripts from our origin."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        policy = ADMIN_POLICY if request.path.startswith("/admin/") else PAGES_POLICY
        response.setdefault("Content-Security-Policy", policy)
        return response
