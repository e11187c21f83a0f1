"""The calls for environments: parse, make one call, render."""

from __future__ import annotations

from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.fields import MomentField, StrictBooleanField, StrictSerializer, TextField
from knoxcall.api.idempotency import idempotent
from knoxcall.api.schema import documented
from knoxcall.api.views import ApiView, body_of
from secrets_app.api.authentication import key_of, scope_of
from secrets_app.environments import MOST, create_environment
from secrets_app.models import Environment

NAME = RegexValidator(r"\A[a-z0-9_-]+\Z", "Must consist of a-z, 0-9, _ and -.")
COLOR = RegexValidator(r"\A#[0-9A-Fa-f]{6}\Z", "Must be a colour such as #6366f1.")


class NewEnvironmentSerializer(StrictSerializer):
    """The body that creates an environment."""

    name = TextField(max_length=64, validators=[NAME])
    display_name = TextField(required=False, max_length=255, help_text="The name where it is left out.")
    description = TextField(required=False, allow_blank=True, max_length=4000)
    color = TextField(required=False, validators=[COLOR])
    is_default = StrictBooleanField(required=False, help_text="The one before ceases to be.")


class EnvironmentSerializer(serializers.Serializer):
    """An environment."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    display_name = serializers.CharField()
    description = serializers.CharField()
    color = serializers.CharField()
    is_default = serializers.BooleanField()
    created_at = MomentField()


class EnvironmentsView(ApiView):
    """`/v1/environments`"""

    permissions = {"GET": "secrets:read", "POST": "secrets:write"}

    @documented(
        "List environments",
        answer=EnvironmentSerializer(many=True),
        details="All of them, sorted by name; the list has no pages.",
    )
    def get(self, request: Request) -> Response:
        environments = Environment.objects.for_key(key_of(request)).order_by("name")
        return success(EnvironmentSerializer(environments, many=True).data)

    @documented(
        "Create an environment",
        body=NewEnvironmentSerializer,
        answer=EnvironmentSerializer,
        status=201,
        errors=(400, 403, 409),
        details=f"At most {MOST} for live keys and as many for test keys.",
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = NewEnvironmentSerializer(data=body_of(request))
        body.is_valid(raise_exception=True)
        attempt = request.attempt  # type: ignore[attr-defined]
        environment = Environment.objects.filter(pk=attempt.resource_id).first() if attempt.resource_id else None
        if environment is None:
            environment = create_environment(scope_of(request), attempt=attempt, **body.validated_data)
        return success(EnvironmentSerializer(environment).data, status=201)
