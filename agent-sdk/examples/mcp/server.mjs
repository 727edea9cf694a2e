// An MCP server for agents that may search, and for nobody else. MAYFLY_GUARD says where the guard is: node server.mjs PORT
import { createServer } from "node:http";
import { Guard } from "@mayfly/agent";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const guard = new Guard({ audience: "https://search.example" });

const mcp = createMcpHandler(({ authInfo }) => {
  const { caller } = authInfo.extra;
  const server = new McpServer({ name: "search", version: "1.0.0" });
  server.registerTool("search", { description: "Searches.", inputSchema: z.object({ topic: z.string() }) }, ({ topic }) => ({
    content: [{ type: "text", text: `${topic} for ${caller.user?.sub} by ${caller.agentId}` }],
  }));
  return server;
});

const fetch = guard.handler(["search:read"], (request, caller) => {
  const authInfo = { token: "", clientId: caller.agentId, scopes: caller.scopes, extra: { caller } };
  return mcp.fetch(request, { authInfo });
});

const server = createServer(toNodeHandler({ fetch }));
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log(`running on http://127.0.0.1:${server.address().port}/mcp`));
