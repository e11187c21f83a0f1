"""The calls for secrets and collections: parse, make one call, render."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.errors import NotFound, invalid
from knoxcall.api.idempotency import idempotent
from knoxcall.api.pagination import paged
from knoxcall.api.schema import documented, paging_parameters
from knoxcall.api.views import ApiView, body_of, parse_id
from secrets_app.api.authentication import key_of, scope_of
from secrets_app.api.serializers import (
    CollectionSerializer,
    NewCollectionSerializer,
    NewStringSerializer,
    SecretDetailSerializer,
    SecretRowSerializer,
)
from secrets_app.collections import create_collection
from secrets_app.kinds import KINDS, SecretKind, StringKind, kind_named, kind_of, register
from secrets_app.models import Collection, Secret
from secrets_app.vault import Scope, create_string, delete_secret, normalise_name


class CreatableString(StringKind):
    """The string kind with its create call."""

    def create(self, scope: Scope, data: Mapping[str, Any], attempt: Any) -> Secret:
        body = NewStringSerializer(data=data)
        body.is_valid(raise_exception=True)
        return create_string(scope, body.new_secret(), body.value_plaintext(), attempt=attempt)


register(CreatableString())


def prepared(queryset: QuerySet) -> QuerySet:
    """``queryset`` with all that rows of every kind show, in a constant number of statements."""
    queryset = queryset.select_related("base_environment")
    for kind in KINDS.values():
        queryset = kind.prepare(queryset)
    return queryset


def created(request: Request, kind: SecretKind) -> Response:
    """Create a secret of ``kind`` from the body, or answer with the one that an earlier run of this request created."""
    scope, attempt = scope_of(request), request.attempt  # type: ignore[attr-defined]
    secret = Secret.objects.filter(pk=attempt.resource_id).first() if attempt.resource_id else None
    if secret is None:
        secret = kind.create(scope, body_of(request), attempt)
    shown = prepared(Secret.objects.filter(pk=secret.pk)).first()
    if shown is None:
        # Deleted by somebody else in the moment since.
        raise NotFound
    return success({**SecretRowSerializer(shown).data, **kind_of(shown).answer(shown)}, status=201)


def _by_type(queryset: QuerySet, value: str) -> QuerySet:
    if value not in Secret.Type.values:
        raise invalid("secret_type", f"Must be one of: {', '.join(Secret.Type.values)}.")
    return queryset.filter(secret_type=value)


def _by_collection(queryset: QuerySet, value: str) -> QuerySet:
    try:
        return queryset.filter(collection_id=uuid.UUID(value))
    except ValueError:
        raise invalid("collection_id", "Must be a UUID.") from None


def _by_name(queryset: QuerySet, value: str) -> QuerySet:
    try:
        return queryset.filter(name=normalise_name(value))
    except ValueError as err:
        raise invalid("name", str(err)) from None


FILTERS: dict[str, Callable[[QuerySet, str], QuerySet]] = {
    "secret_type": _by_type,
    "collection_id": _by_collection,
    "name": _by_name,
}


class SecretsView(ApiView):
    """`/v1/secrets`"""

    permissions = {"GET": "secrets:read", "POST": "secrets:write"}

    @documented(
        "List secrets",
        answer=SecretRowSerializer(many=True),
        paged=True,
        parameters=paging_parameters(
            sorts=("name", "created_at", "base_environment"),
            filters=("secret_type", "collection_id", "name", "provider", "connection_status"),
        ),
        errors=(400,),
    )
    def get(self, request: Request) -> Response:
        queryset: QuerySet = Secret.objects.for_key(key_of(request))
        for filters in (FILTERS, *(kind.filters for kind in KINDS.values())):
            for name, narrow in filters.items():
                if name in request.query_params:
                    queryset = narrow(queryset, request.query_params[name])
        return paged(
            request,
            prepared(queryset),
            row=lambda secret: SecretRowSerializer(secret).data,
            sorts={"name": "name", "created_at": "created_at", "base_environment": "base_environment__name"},
            default_sort="name",
        )

    @documented(
        "Create a secret",
        body=NewStringSerializer,
        answer=SecretRowSerializer,
        status=201,
        errors=(400, 403, 409, 413, 415, 503),
        details="With `secret_type: oauth2` the body is that of `POST /v1/secrets/oauth2`, with `certificate` that of "
        "`POST /v1/secrets/certificate`.",
    )
    @idempotent
    def post(self, request: Request) -> Response:
        return created(request, kind_named(body_of(request).get("secret_type", Secret.Type.STRING)))


class SecretView(ApiView):
    """`/v1/secrets/:id`"""

    permissions = {"GET": "secrets:read", "DELETE": "secrets:delete"}

    @documented("Read a secret", answer=SecretDetailSerializer, errors=(404,), details="Everything but its value.")
    def get(self, request: Request, secret_id: str) -> Response:
        found = prepared(Secret.objects.for_key(key_of(request)).filter(pk=parse_id(secret_id))).first()
        if found is None:
            raise NotFound
        return success(SecretDetailSerializer(found).data)

    @documented("Delete a secret", answer={"deleted": True}, errors=(404, 409))
    @idempotent
    def delete(self, request: Request, secret_id: str) -> Response:
        attempt = request.attempt  # type: ignore[attr-defined]
        if attempt.resource_id is None:
            scope = scope_of(request)
            delete_secret(
                scope,
                parse_id(secret_id),
                attempt=attempt,
                dismantle=lambda secret: kind_of(secret).dismantle(secret, scope),
            )
        return success({"deleted": True})


class CollectionsView(ApiView):
    """`/v1/collections`"""

    permissions = {"GET": "collections:read", "POST": "collections:write"}

    @documented(
        "List collections",
        answer=CollectionSerializer(many=True),
        paged=True,
        parameters=paging_parameters(sorts=("name", "created_at")),
        errors=(400,),
    )
    def get(self, request: Request) -> Response:
        return paged(
            request,
            Collection.objects.for_key(key_of(request)),
            row=lambda collection: CollectionSerializer(collection).data,
            sorts={"name": "name", "created_at": "created_at"},
            default_sort="name",
        )

    @documented(
        "Create a collection",
        body=NewCollectionSerializer,
        answer=CollectionSerializer,
        status=201,
        errors=(400, 403, 409),
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = NewCollectionSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        attempt = request.attempt  # type: ignore[attr-defined]
        collection = Collection.objects.filter(pk=attempt.resource_id).first() if attempt.resource_id else None
        if collection is None:
            collection = create_collection(scope_of(request), attempt=attempt, **body.validated_data)
        return success(CollectionSerializer(collection).data, status=201)
