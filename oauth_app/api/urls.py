"""Addresses of the calls for OAuth2 secrets, with or without a closing slash."""

from django.urls import re_path

from oauth_app.api.views import OAuth2SecretsView, TokenView

urlpatterns = [
    re_path(r"^secrets/oauth2/?$", OAuth2SecretsView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/oauth2/token/?$", TokenView.as_view()),
]
