"""A decorator for Starlette, FastAPI and FastMCP's routes: `@mayfly.requires("mail:send")` below `@app.get(…)`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .asgi import KEY, authorization
from .guard import Guard, Refused

F = TypeVar("F", bound=Callable[..., Any])

#: The parameter that is added to an endpoint of FastAPI that does not take its request.
_ADDED = "mayfly_request"


def requires(*scopes: str, guard: Guard | None = None) -> Callable[[F], F]:
    """Lets agents call an endpoint that have all of these scopes; others get 401, 403 or 503, and a websocket is closed.

    The `Caller` is `request.scope["mayfly"]`. Without `guard` it is that of `$MAYFLY_GUARD` and `$MAYFLY_AUDIENCE`. It stands below
    the decorator of the route. Raises `TypeError` for scopes that are no strings, as where the parentheses were left out.
    """
    if not all(isinstance(scope, str) for scope in scopes):
        raise TypeError('write @mayfly.requires("scope"), with parentheses')

    def decorate(endpoint: F) -> F:
        signature, name, position = _request_of(endpoint)

        def request(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            found: Any = kwargs.pop(_ADDED, None) if name == _ADDED else kwargs.get(name)
            if found is None and position < len(args):
                found = args[position]
            if not hasattr(found, "scope"):
                raise TypeError(
                    f"`{endpoint.__qualname__}` takes no request, so nobody can be let in: give it a parameter `request`"
                )
            # What an outer layer put there may be about less.
            found.scope.pop(KEY, None)
            return found

        @functools.wraps(endpoint)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            of = request(args, kwargs)
            try:
                of.scope[KEY] = await (guard or _guard()).acheck_header(authorization(of.scope), scopes)
            except Refused as e:
                if of.scope["type"] == "websocket":
                    return await of.close(1008, e.code)
                return _answer(e)
            return await endpoint(*args, **kwargs)

        @functools.wraps(endpoint)
        def checked_in_a_thread(*args: Any, **kwargs: Any) -> Any:
            of = request(args, kwargs)
            try:
                of.scope[KEY] = (guard or _guard()).check_header(authorization(of.scope), scopes)
            except Refused as e:
                return _answer(e)
            return endpoint(*args, **kwargs)

        wrapper: Any = checked if inspect.iscoroutinefunction(endpoint) else checked_in_a_thread
        # FastAPI fills in what the signature says, and would look for its names in this module.
        wrapper.__signature__ = signature
        return wrapper  # type: ignore[no-any-return]

    return decorate


def _request_of(endpoint: Callable[..., Any]) -> tuple[inspect.Signature, str, int]:
    """The signature of an endpoint, and which parameter is its request; one is added if there is none."""
    from starlette.requests import HTTPConnection, Request

    try:
        signature = inspect.signature(endpoint, eval_str=True)
    except NameError:
        signature = inspect.signature(endpoint)
    parameters = list(signature.parameters.values())
    for position, parameter in enumerate(parameters):
        kind = parameter.annotation
        # A name that cannot be resolved, as one that a function has imported, is known by its last part.
        named = isinstance(kind, str) and kind.rpartition(".")[2] in ("Request", "WebSocket", "HTTPConnection")
        if named or (isinstance(kind, type) and issubclass(kind, HTTPConnection)):
            return signature, parameter.name, position
    for position, parameter in enumerate(parameters):
        if parameter.name in ("request", "websocket") and parameter.annotation is inspect.Parameter.empty:
            return signature, parameter.name, position
    added = inspect.Parameter(_ADDED, inspect.Parameter.KEYWORD_ONLY, annotation=Request)
    variable = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.VAR_KEYWORD]
    return signature.replace(parameters=[*(p for p in parameters if p not in variable), added, *variable]), _ADDED, len(parameters)


def _answer(refused: Refused) -> Any:
    from starlette.responses import Response

    return Response(refused.body, refused.status, refused.headers, "application/json")


@functools.cache
def _guard() -> Guard:
    return Guard()
