"""An MCP server for agents that may search, and for nobody else. MAYFLY_GUARD says where the guard is: python server.py PORT"""

import sys

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from mayfly.verify import Guard
from mayfly.verify.asgi import Middleware

server = MCPServer("search")


@server.tool()
def search(topic: str, context: Context) -> str:
    """Searches."""
    caller = context.request_context.request.scope["mayfly"]
    return f"{topic} for {caller.user.sub} by {caller.agent_id}"


app = Middleware(server.streamable_http_app(), Guard(audience="https://search.example"), ["search:read"])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
