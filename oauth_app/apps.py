"""Connections as a Django app. When it starts it tells the vault of the `oauth2` kind of secret."""

from django.apps import AppConfig


class OAuthConfig(AppConfig):
    name = "oauth_app"
    verbose_name = "OAuth2 connections"

    def ready(self) -> None:
        from oauth_app.kind import OAuth2Kind
        from secrets_app.kinds import register

        register(OAuth2Kind())
