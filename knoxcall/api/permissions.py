"""Which key may make which call: each view names the permission of each method, the key's role answers."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission

from knoxcall.api.errors import Forbidden


class HasPermission(BasePermission):
    """Asks the key that authenticated the request. Raises ``Forbidden`` naming the permission that is missing."""

    def has_permission(self, request: Any, view: Any) -> bool:
        needed = view.permissions.get("GET" if request.method == "HEAD" else request.method)
        if needed is None:
            # No such method here: the view answers 405 in a moment.
            return True
        if not request.auth.grants(needed):
            raise Forbidden(f"This call needs the permission `{needed}`, which the API key's role does not have.")
        return True
