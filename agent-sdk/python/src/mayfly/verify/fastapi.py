"""A dependency for FastAPI, and for Starlette a function to call: `caller: Caller = Depends(requires("mail:send"))`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from .asgi import authorization
from .guard import Caller, Guard, Refused


@cache
def _guard() -> Guard:
    return Guard()


def requires(*scopes: str, guard: Guard | None = None) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Returns `async (request) -> Caller`: the agent that has all of these scopes, or an `HTTPException` of 401, 403 or 503.

    Without `guard` it is that of `$MAYFLY_GUARD` and `$MAYFLY_AUDIENCE`.
    """

    async def caller(request: HTTPConnection) -> Caller:
        try:
            return await (guard or _guard()).acheck_header(authorization(request.scope), scopes)
        except Refused as e:
            raise HTTPException(e.status, e.code, e.headers) from None

    # FastAPI resolves annotations by name, where this module's names are not known.
    caller.__annotations__ = {"request": HTTPConnection, "return": Caller}
    return caller
