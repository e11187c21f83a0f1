"""The errors of the REST API, declared as classes, and the one place that turns anything raised into the contract's shape.

Shape: ``{"error": {"type", "message", "request_id"}}``, and on validation errors ``"fields": {"name": ["message"]}`` beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.views import defaults
from rest_framework import exceptions

from knoxcall.context import request_id

logger = logging.getLogger(__name__)

Fields = Mapping[str, list[str]]


class ApiError(Exception):
    """An error that a client may see. ``message`` is plain words and never contains a value that was sent as a secret.

    ``fields`` names what was wrong where; ``retry_after`` is whole seconds; further keywords join the ``error`` object.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    message: str = "Something went wrong on our side."

    def __init__(
        self, message: str | None = None, *, fields: Fields | None = None, retry_after: int | None = None, **extra: Any
    ) -> None:
        self.message = message or self.message
        self.fields = fields
        self.retry_after = retry_after
        self.extra = extra
        self.headers: dict[str, str] = {}
        super().__init__(self.message)


class ValidationFailed(ApiError):
    status, type = 400, "validation_error"
    message = "The request is not valid."


def invalid(name: str, message: str) -> ValidationFailed:
    """A validation error about one field or parameter, named in the message and in ``fields``."""
    return ValidationFailed(f"{name}: {message}", fields={name: [message]})


class InvalidType(ApiError):
    status, type = 400, "invalid_type"
    message = "The secret is not of the type that this call needs."


class Unauthorized(ApiError):
    """One wording for a missing, malformed, unknown, revoked or expired key: the answer tells a guesser nothing."""

    status, type = 401, "unauthorized"
    message = "A valid API key is required, as `Authorization: Bearer tk_…` or `x-api-key`."

    def __init__(self) -> None:
        super().__init__()
        self.headers["WWW-Authenticate"] = "Bearer"


class Forbidden(ApiError):
    status, type = 403, "forbidden"
    message = "The API key's role does not allow this call."


class PlanLimitReached(ApiError):
    """``limit`` carries ``{"resource", "used", "limit", "plan"}``."""

    status, type = 403, "plan_limit"
    message = "The plan does not allow this."


class NotFound(ApiError):
    status, type = 404, "not_found"
    message = "There is nothing here."


class MethodNotAllowed(ApiError):
    status, type = 405, "method_not_allowed"
    message = "This address does not take that method."


class Conflict(ApiError):
    status, type = 409, "conflict"
    message = "It exists already."


class InUse(ApiError):
    status, type = 409, "in_use"
    message = "Something else still uses it."


class IdempotencyKeyReused(ApiError):
    status, type = 409, "idempotency_key_reuse"
    message = "This idempotency key was used for a different request."


class PayloadTooLarge(ApiError):
    status, type = 413, "payload_too_large"
    message = "The body is larger than 1 MiB."


class UnsupportedMediaType(ApiError):
    status, type = 415, "unsupported_media_type"
    message = "Send JSON, with `Content-Type: application/json`."


class InternalError(ApiError):
    pass


class TokenUnavailable(ApiError):
    """No usable access token could be had. ``reason`` says why, in the contract's words."""

    status, type = 500, "token_error"
    message = "No usable access token could be had."


class DependencyUnavailable(ApiError):
    status, type = 503, "dependency_unavailable"
    message = "A service that the vault depends on does not answer. Try again shortly."

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(message, retry_after=retry_after)


def error_response(error: ApiError) -> JsonResponse:
    """Render ``error`` in the contract's shape."""
    body: dict[str, Any] = {
        "error": {"type": error.type, "message": error.message, **error.extra, "request_id": request_id.get()}
    }
    if error.fields is not None:
        body["fields"] = error.fields
    # Written like the successes, which DRF renders.
    response = JsonResponse(
        body, status=error.status, json_dumps_params={"ensure_ascii": False, "separators": (",", ":")}
    )
    for name, value in error.headers.items():
        response[name] = value
    if error.retry_after is not None:
        response["Retry-After"] = str(max(1, error.retry_after))
    return response


def handle_exception(exc: Exception, context: Mapping[str, Any]) -> JsonResponse:
    """DRF's exception handler: every exception becomes an answer in our shape, an unforeseen one a bare 500."""
    return error_response(as_api_error(exc))


def as_api_error(exc: Exception) -> ApiError:
    """Translate anything that a view may raise. What is not recognised is logged with its traceback and says nothing."""
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, exceptions.ValidationError):
        return from_validation(exc.detail)
    if isinstance(exc, exceptions.ParseError):
        return ValidationFailed(str(exc.detail))
    if isinstance(exc, exceptions.UnsupportedMediaType):
        return UnsupportedMediaType()
    if isinstance(exc, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        return Unauthorized()
    if isinstance(exc, exceptions.PermissionDenied | DjangoPermissionDenied):
        return Forbidden()
    if isinstance(exc, exceptions.NotFound | Http404):
        return NotFound()
    if isinstance(exc, exceptions.MethodNotAllowed):
        return MethodNotAllowed()
    if isinstance(exc, RequestDataTooBig):
        return PayloadTooLarge()
    if isinstance(exc, SuspiciousOperation):
        return ValidationFailed()
    if isinstance(exc, UnreadablePostError):
        return ValidationFailed("The body ended before it was complete.")
    if isinstance(exc, OperationalError | InterfaceError):
        logger.warning("The database does not answer: %s", type(exc).__name__)
        return DependencyUnavailable()
    logger.error("Unhandled %s", type(exc).__name__, exc_info=exc)
    return InternalError()


def from_validation(detail: Any) -> ValidationFailed:
    """Flatten DRF's nested details to one list of messages per top-level field."""
    if not isinstance(detail, Mapping):
        return ValidationFailed(" ".join(_messages(detail)))
    fields: dict[str, list[str]] = {}
    for name, nested in detail.items():
        fields.setdefault("body" if name == "non_field_errors" else str(name), []).extend(_messages(nested))
    name, messages = next(iter(fields.items()))
    summary = messages[0] if name == "body" else f"{name}: {messages[0]}"
    if len(fields) > 1:
        summary += f" (and {len(fields) - 1} more)"
    return ValidationFailed(summary, fields=fields)


def _messages(detail: Any) -> list[str]:
    if isinstance(detail, Mapping):
        return [f"{key}: {message}" for key, nested in detail.items() for message in _messages(nested)]
    if isinstance(detail, list | tuple):
        return [message for nested in detail for message in _messages(nested)]
    return [str(detail)]


def is_api(request: HttpRequest) -> bool:
    """Whether the request is for the REST API, whose every answer is JSON in the contract's shape."""
    return request.path == "/v1" or request.path.startswith("/v1/")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler404`: JSON under `/v1`, a page elsewhere."""
    return error_response(NotFound()) if is_api(request) else defaults.page_not_found(request, exception)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler400`, for what Django itself refuses: a wrong Host header, a body over the limit."""
    return error_response(as_api_error(exception)) if is_api(request) else defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler403`."""
    return error_response(Forbidden()) if is_api(request) else defaults.permission_denied(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """`handler500`: the traceback goes to the log, never to the client."""
    return error_response(InternalError()) if is_api(request) else defaults.server_error(request)
