"""Every address of the vault. The API's parts bring their own; nothing under `/v1` ever redirects."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import TemplateView

urlpatterns = [
    path("", TemplateView.as_view(template_name="index.html"), name="index"),
    path("admin/", admin.site.urls),
    path("v1/", include("oauth_app.api.urls")),
    path("v1/", include("secrets_app.api.urls")),
    path("auth/oauth2/", include("oauth_app.urls")),
]

handler400 = "knoxcall.api.errors.bad_request"
handler403 = "knoxcall.api.errors.permission_denied"
handler404 = "knoxcall.api.errors.page_not_found"
handler500 = "knoxcall.api.errors.server_error"
