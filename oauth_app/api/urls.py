"""Addresses of the calls for providers, OAuth2 secrets and their tokens, with or without a closing slash."""

from django.urls import re_path

from oauth_app.api.providers import ProvidersView
from oauth_app.api.views import (
    AuthorizeView,
    ConnectionView,
    DisconnectView,
    OAuth2SecretsView,
    RefreshView,
    TokenView,
)

urlpatterns = [
    re_path(r"^providers/?$", ProvidersView.as_view()),
    re_path(r"^secrets/oauth2/?$", OAuth2SecretsView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/oauth2/?$", ConnectionView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/oauth2/token/?$", TokenView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/oauth2/authorize/?$", AuthorizeView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/oauth2/refresh/?$", RefreshView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/oauth2/disconnect/?$", DisconnectView.as_view()),
]
