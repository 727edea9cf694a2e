"""A decorator for Flask: `@requires("mail:send")` below `@app.get(…)`; the `Caller` is `flask.g.caller`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import flask

from .guard import Guard, Refused
from .wsgi import authorization

F = TypeVar("F", bound=Callable[..., Any])


def requires(*scopes: str, guard: Guard | None = None) -> Callable[[F], F]:
    """Lets agents call a view that have all of these scopes; others get 401, 403 or 503.

    Without `guard` it is that of `$MAYFLY_GUARD` and `$MAYFLY_AUDIENCE`.
    """

    def decorate(view: F) -> F:
        @functools.wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                flask.g.caller = (guard or _guard()).check_header(authorization(flask.request.environ), scopes)
            except Refused as e:
                return flask.Response(e.body, e.status, e.headers, content_type="application/json")
            return flask.current_app.ensure_sync(view)(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


@functools.cache
def _guard() -> Guard:
    return Guard()
