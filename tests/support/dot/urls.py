"""What the provider serves: the toolkit, a login, a resource to try tokens on, and the controls."""

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.http import require_GET
from oauth2_provider.decorators import protected_resource

from tests.support.dot import control


@require_GET
@protected_resource(scopes=["read"], advertise_metadata=True)
def protected(request: HttpRequest) -> JsonResponse:
    """A resource that needs a live token: 200, or 401."""
    owner = request.resource_owner
    return JsonResponse({"username": owner.get_username() if owner else None})


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("login/", LoginView.as_view()),
    path("protected", protected),
    path("control/applications", control.applications),
    path("control/redirect-uris", control.redirect_uris),
    path("control/users", control.users),
    path("control/tokens", control.tokens),
    path("control/revocations", control.revocations),
]
