"""A decorator for Django's views, sync and async: `@requires("mail:send")`; the `Caller` is `request.caller`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpResponse

from .guard import Guard, Refused

F = TypeVar("F", bound=Callable[..., Any])


def requires(*scopes: str, guard: Guard | None = None) -> Callable[[F], F]:
    """Lets agents call a view that have all of these scopes; others get 401, 403 or 503.

    Without `guard` it is that of `$MAYFLY_GUARD` and `$MAYFLY_AUDIENCE`.
    """

    def decorate(view: F) -> F:
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def achecked(request: Any, *args: Any, **kwargs: Any) -> Any:
                try:
                    request.caller = await (guard or _guard()).acheck_header(_authorization(request), scopes)
                except Refused as e:
                    return _refuse(e)
                return await view(request, *args, **kwargs)

            return achecked  # type: ignore[return-value]

        @functools.wraps(view)
        def checked(request: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                request.caller = (guard or _guard()).check_header(_authorization(request), scopes)
            except Refused as e:
                return _refuse(e)
            return view(request, *args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


@functools.cache
def _guard() -> Guard:
    return Guard()


def _authorization(request: Any) -> list[str]:
    value = request.META.get("HTTP_AUTHORIZATION")
    return [value] if value else []


def _refuse(refused: Refused) -> HttpResponse:
    return HttpResponse(refused.body, "application/json", refused.status, headers=refused.headers)
