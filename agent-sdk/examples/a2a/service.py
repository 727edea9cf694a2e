"""An agent that others call over A2A: it says for whom it was called. `oidc_server.py` and `mtls_server.py` let callers in."""

from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import DefaultServerCallContextBuilder, create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCard
from starlette.applications import Starlette


class Answer(AgentExecutor):
    async def execute(self, context: RequestContext, events: EventQueue) -> None:
        await events.enqueue_event(new_text_message(f"{context.get_user_input()} for {context.call_context.state['for']}"))

    async def cancel(self, context: RequestContext, events: EventQueue) -> None: ...


class Callers(DefaultServerCallContextBuilder):
    def build(self, request):
        context, caller = super().build(request), request.scope.get("mayfly")
        context.state["for"] = f"{caller.user.sub} by {caller.agent_id}" if caller else "a peer that TLS has verified"
        return context


def app(card: AgentCard) -> Starlette:
    handler = DefaultRequestHandler(Answer(), InMemoryTaskStore(), card)
    return Starlette(routes=create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/a2a", Callers()))
