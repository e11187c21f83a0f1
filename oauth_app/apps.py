"""Connections as a Django app. When it starts it tells the vault of the `oauth2` kind of secret."""

from django.apps import AppConfig


class OAuthConfig(AppConfig):
    name = "oauth_app"
    verbose_name = "OAuth2 connections"

    def ready(self) -> None:
        from oauth_app.discovery import issuer_changed
        from oauth_app.kind import OAuth2Kind
        from oauth_app.registrations import follow_issuer, use_new_certificate
        from secrets_app.certificates import certificate_replaced
        from secrets_app.kinds import register

        register(OAuth2Kind())
        issuer_changed.connect(follow_issuer)
        certificate_replaced.connect(use_new_certificate)
