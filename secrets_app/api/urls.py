"""Addresses of the calls for secrets, collections and environments, with or without a closing slash."""

from django.urls import re_path

from secrets_app.api.certificates import CertificatesView, CertificateView
from secrets_app.api.environments import EnvironmentsView
from secrets_app.api.views import CollectionsView, SecretsView, SecretView

urlpatterns = [
    re_path(r"^secrets/?$", SecretsView.as_view()),
    # Before the one with an id.
    re_path(r"^secrets/certificate/?$", CertificatesView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/certificate/?$", CertificateView.as_view()),
    re_path(r"^secrets/(?P<secret_id>[^/]+)/?$", SecretView.as_view()),
    re_path(r"^collections/?$", CollectionsView.as_view()),
    re_path(r"^environments/?$", EnvironmentsView.as_view()),
]
