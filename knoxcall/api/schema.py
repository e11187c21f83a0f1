"""How the OpenAPI schema is made: each view states its answer and its errors beside the method, in one decorator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers

# What each status of the contract means, for the schema's readers.
ERRORS: dict[int, str] = {
    400: "`validation_error` or `invalid_type`",
    401: "`unauthorized`",
    403: "`forbidden` or `plan_limit`",
    404: "`not_found`",
    409: "`conflict`, `in_use` or `idempotency_key_reuse`",
    413: "`payload_too_large`",
    415: "`unsupported_media_type`",
    429: "`rate_limited`, with `Retry-After`",
    500: "`token_error`, with `error.reason`",
    503: "`dependency_unavailable`, with `Retry-After`",
}


class ErrorBodySerializer(serializers.Serializer):
    """What went wrong."""

    type = serializers.CharField()
    message = serializers.CharField()
    request_id = serializers.CharField()
    reason = serializers.CharField(required=False)
    limit = serializers.DictField(required=False)


class ErrorSerializer(serializers.Serializer):
    """The shape of every error."""

    error = ErrorBodySerializer()
    fields = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()), required=False
    )


class MetaSerializer(serializers.Serializer):
    """What comes with every answer."""

    request_id = serializers.CharField()


class PageMetaSerializer(MetaSerializer):
    """What comes with a page of a list."""

    total = serializers.IntegerField()
    page = serializers.IntegerField()
    per_page = serializers.IntegerField()
    total_pages = serializers.IntegerField()


def without_closing_slash(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """Name each address once, as the contract does; the spelling with a closing slash is a courtesy."""
    return [(path.rstrip("/"), regex, method, view) for path, regex, method, view in endpoints]


class VaultSchema(AutoSchema):
    """Every view here states its schema by ``documented``; tags come from the first part of the path."""

    def get_tags(self) -> list[str]:
        return [self.path.split("/")[2].replace("-", " ")]


def documented(
    summary: str,
    *,
    answer: Any,
    body: Any = None,
    status: int = 200,
    paged: bool = False,
    parameters: Sequence[OpenApiParameter] = (),
    errors: Sequence[int] = (),
    details: str = "",
) -> Callable[[Any], Any]:
    """Describe a method: the ``data`` it answers with, the body it takes, and the errors it gives.

    Those of every call (401, 403, 503) need not be named.
    """

    def decorate(method: Any) -> Any:
        responses: dict[int, Any] = {status: _enveloped(method.__qualname__, answer, paged=paged)}
        for code in sorted({401, 403, 503, *errors}):
            responses[code] = OpenApiResponse(ErrorSerializer, description=ERRORS[code])
        return extend_schema(
            operation_id=summary.lower().replace(" ", "_").replace("'", ""),
            summary=summary,
            description=details or summary,
            request=body,
            responses=responses,
            parameters=list(parameters),
        )(method)

    return decorate


def _enveloped(qualname: str, answer: Any, *, paged: bool) -> Any:
    name = qualname.replace(".", "_")
    data = answer
    if isinstance(answer, dict):
        kinds = {bool: serializers.BooleanField, str: serializers.CharField, int: serializers.IntegerField}
        data = inline_serializer(f"{name}_data", {key: kinds[type(value)]() for key, value in answer.items()})
    elif isinstance(answer, type):
        data = answer()
    return inline_serializer(
        f"{name}_answer", {"data": data, "meta": PageMetaSerializer() if paged else MetaSerializer()}
    )


def paging_parameters(*, sorts: Sequence[str], filters: Sequence[str] = ()) -> list[OpenApiParameter]:
    """The query parameters of a paged list."""
    return [
        OpenApiParameter("page", int, description="From 1."),
        OpenApiParameter("per_page", int, description="1 to 100; 20 where it is left out, 100 where it is more."),
        OpenApiParameter("sort", str, enum=list(sorts)),
        OpenApiParameter("order", str, enum=["asc", "desc"]),
        *(OpenApiParameter(name, str) for name in filters),
    ]
