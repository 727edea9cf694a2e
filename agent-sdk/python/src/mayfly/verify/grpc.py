"""An interceptor for gRPC servers: `grpc.server(…, interceptors=[Interceptor(Guard(…), {"/svc/Method": ["mail:send"]})])`."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from .guard import Caller, Guard, Refused

_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("mayfly_caller")


def caller() -> Caller:
    """The agent that makes the current call, for a method with one answer; one that streams asks before its first `yield` in a
    function that returns the stream. Raises `LookupError` elsewhere."""
    return _caller.get()


class Interceptor(grpc.ServerInterceptor):
    """Lets calls of agents pass that have the scopes of the method; `scopes` are by full method name, as `/package.Service/Method`.

    A method that is not listed is refused, unless `default` says which scopes are enough. `public`: methods that need no agent.
    Others end with UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE, and the reason in the metadata `mayfly-reason`.
    """

    def __init__(
        self,
        guard: Guard,
        scopes: Mapping[str, Sequence[str]],
        *,
        default: Sequence[str] | None = None,
        public: Sequence[str] = (),
    ) -> None:
        self._guard, self._scopes, self._default, self._public = guard, dict(scopes), default, frozenset(public)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """As grpcio calls it. The guard is asked in the thread of the call, so that no other call waits for it."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or method in self._public:
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        values = [value if isinstance(value, str) else "" for key, value in metadata if key == "authorization"]
        inner = getattr(handler, _kind(handler))

        def checked(request: Any, context: Any) -> Any:
            try:
                found = self._check(method, values)
            except Refused as e:
                context.set_trailing_metadata((("mayfly-reason", e.code),))
                context.abort(_CODES[e.status], f"{e.code}: the call is refused")
            token = _caller.set(found)
            try:
                return inner(request, context)
            finally:
                _caller.reset(token)

        make = getattr(grpc, f"{_kind(handler)}_rpc_method_handler")
        return make(checked, handler.request_deserializer, handler.response_serializer)

    def _check(self, method: str, values: Sequence[str]) -> Caller:
        wanted = self._scopes.get(method, self._default)
        if wanted is None:
            raise Refused(403, "CALLER_NOT_AUTHORIZED", "this method is for no agent")
        return self._guard.check_header(values, wanted)


def _kind(handler: Any) -> str:
    return f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
