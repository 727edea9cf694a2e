"""An MCP server that is a resource of the issuer ISSUER at the URL RESOURCE, beside a guard: server.py PORT KEY CERTIFICATE"""

import os
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


port, key, certificate = sys.argv[1:]
guard = Guard(audience=os.environ["RESOURCE"], issuer=os.environ["ISSUER"])
app = Middleware(server.streamable_http_app(), guard, ["search:read"])
uvicorn.run(app, host="127.0.0.1", port=int(port), ssl_keyfile=key, ssl_certfile=certificate, log_level="warning")
