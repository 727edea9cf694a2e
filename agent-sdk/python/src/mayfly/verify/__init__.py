"""Verification of agents by `mayfly guard`, which runs beside the service and hears of every revocation at once.

| you have | use |
|---|---|
| Starlette, FastAPI, FastMCP | `@mayfly.requires`, `mayfly.verify.fastapi.requires`, or `mayfly.verify.asgi.Middleware` |
| Flask | `mayfly.verify.flask.requires`, or `mayfly.verify.wsgi.Middleware` |
| Django | `mayfly.verify.django.requires` |
| gRPC | `mayfly.verify.grpc.Interceptor` |
| something else | `Guard.check_header` |

Each fails closed: a request without a credential, with one that is not valid or with too little scope is refused by 401 or 403,
and when the guard is away or stale, every request is refused by 503.
"""

from __future__ import annotations

from .guard import Caller, Guard, Refused

__all__ = ["Caller", "Guard", "Refused"]
