"""Addresses that browsers visit."""

from django.urls import path

from oauth_app.views import callback, connect

urlpatterns = [
    path("callback/<uuid:secret_id>", callback, name="oauth2-callback"),
    path("connect", connect, name="oauth2-connect"),
]
