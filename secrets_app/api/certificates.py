"""The calls for certificate secrets, and what the kind adds to the common ones: parse, make one call, render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from knoxcall.api.envelope import success
from knoxcall.api.errors import NotFound
from knoxcall.api.fields import ChoiceTextField, MomentField, SecretTextField, StrictSerializer
from knoxcall.api.idempotency import Attempt, idempotent
from knoxcall.api.schema import documented
from knoxcall.api.views import ApiView, body_of, parse_id
from knoxcall.clock import iso
from secrets_app.api.authentication import scope_of
from secrets_app.api.serializers import NewSecretSerializer, SecretRowSerializer
from secrets_app.api.views import created, prepared
from secrets_app.certificate_files.formats import CERTIFICATE_TYPES
from secrets_app.certificates import (
    ParsedCertificate,
    create_certificate,
    get_certificate,
    parse_certificate,
    replace_certificate,
)
from secrets_app.crypto.fields import presence_of
from secrets_app.kinds import KINDS, SecretKind, register
from secrets_app.models import Secret
from secrets_app.vault import Scope


class CertificateBodySerializer(StrictSerializer):
    """A certificate file, and the private key and passphrase beside it."""

    certificate_content = SecretTextField(
        write_only=True,
        help_text="PEM text, in any order, with or without the private key; or base64 of DER, PKCS#12 or PKCS#7. At most "
        "64 KiB and 20 certificates, which form one chain.",
    )
    certificate_type = ChoiceTextField(
        choices=CERTIFICATE_TYPES, required=False, help_text="What the content is; `pem` where it is left out."
    )
    private_key = SecretTextField(
        required=False, allow_null=True, write_only=True, help_text="PEM, where the content does not hold it."
    )
    passphrase = SecretTextField(
        required=False,
        allow_null=True,
        write_only=True,
        help_text="Opens the private key or the PKCS#12 content. A key that is not encrypted is encrypted under it.",
    )

    def parsed(self) -> ParsedCertificate:
        """The validated certificate. Raises ``ValidationFailed``."""
        given = self.validated_data
        return parse_certificate(
            given["certificate_content"],
            certificate_type=given.get("certificate_type", "pem"),
            private_key=given.get("private_key"),
            passphrase=given.get("passphrase"),
        )


class NewCertificateSerializer(NewSecretSerializer, CertificateBodySerializer):
    """The body that creates a certificate secret."""


class CertificateMetadataSerializer(serializers.Serializer):
    """What is public of a certificate."""

    subject = serializers.CharField(help_text="An RFC 4514 string.")
    issuer = serializers.CharField()
    expires_at = MomentField()
    has_private_key = serializers.BooleanField()
    has_passphrase = serializers.BooleanField()
    fingerprint_sha256 = serializers.CharField(help_text="Lower-case hex, of the DER form.")
    serial_number = serializers.CharField(help_text="Lower-case hex.")


class CertificateAnswer(SecretRowSerializer):
    """The row of a certificate secret."""

    certificate_type = serializers.ChoiceField(choices=CERTIFICATE_TYPES)
    metadata = CertificateMetadataSerializer()


class ReplacedCertificateAnswer(CertificateAnswer):
    """The row, and which version this write made."""

    value_version = serializers.IntegerField()


class CertificateKind(SecretKind):
    """A certificate with its chain and, mostly, its private key."""

    name = Secret.Type.CERTIFICATE

    def create(self, scope: Scope, data: Mapping[str, Any], attempt: Attempt) -> Secret:
        body = NewCertificateSerializer(data=data)
        body.is_valid(raise_exception=True)
        return create_certificate(scope, body.new_secret(), body.parsed(), attempt=attempt)

    def prepare(self, queryset: QuerySet) -> QuerySet:
        unread = ("content", "chain", "private_key", "passphrase")
        has = presence_of("private_key", "passphrase", prefix="certificate__")
        annotated: QuerySet = queryset.select_related("certificate").annotate(**has)
        return annotated.defer(*(f"certificate__{name}" for name in unread))

    def row(self, secret: Any) -> dict[str, Any]:
        certificate = secret.certificate
        return {
            "certificate_type": certificate.certificate_type,
            "metadata": {
                "subject": certificate.subject,
                "issuer": certificate.issuer,
                "expires_at": iso(certificate.expires_at),
                "has_private_key": secret.has_private_key,
                "has_passphrase": secret.has_passphrase,
                "fingerprint_sha256": certificate.fingerprint_sha256,
                "serial_number": certificate.serial_number,
            },
        }

    def environments(self, secret: Secret) -> list[dict[str, Any]]:
        return [
            {
                "environment_name": secret.base_environment.name,
                "value_version": secret.certificate.version,
                "updated_at": iso(secret.certificate.updated_at),
                "expires_at_override": None,
            }
        ]


register(CertificateKind())


class CertificatesView(ApiView):
    """`/v1/secrets/certificate`"""

    permissions = {"POST": "secrets:write"}

    @documented(
        "Create a certificate secret",
        body=NewCertificateSerializer,
        answer=CertificateAnswer,
        status=201,
        errors=(400, 403, 409, 413, 415, 503),
        details="Content that does not parse, a key that does not belong to the certificate, and a wrong passphrase are a "
        "400. An expired certificate is taken; `metadata.expires_at` says so.",
    )
    @idempotent
    def post(self, request: Request) -> Response:
        return created(request, KINDS[Secret.Type.CERTIFICATE])


class CertificateView(ApiView):
    """`/v1/secrets/:id/certificate`"""

    permissions = {"PUT": "secrets:write"}

    @documented(
        "Replace a certificate",
        body=CertificateBodySerializer,
        answer=ReplacedCertificateAnswer,
        errors=(400, 403, 404, 409, 413, 415, 503),
        details="Another certificate under the same id. Nothing is kept of the one before: what is not sent is not there.",
    )
    @idempotent
    def put(self, request: Request, secret_id: str) -> Response:
        scope, attempt = scope_of(request), request.attempt  # type: ignore[attr-defined]
        # Asked first, so that nothing is opened for a secret that is not there.
        certificate = get_certificate(scope, parse_id(secret_id))
        if attempt.resource_id is None:
            body = CertificateBodySerializer(data=body_of(request))
            body.is_valid(raise_exception=True)
            certificate = replace_certificate(scope, certificate.pk, body.parsed(), attempt=attempt)
        shown = prepared(Secret.objects.filter(pk=certificate.pk)).first()
        if shown is None:
            # Deleted by somebody else in the moment since.
            raise NotFound
        return success({**SecretRowSerializer(shown).data, "value_version": certificate.version})
