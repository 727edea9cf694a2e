// An agent that calls a tool of an MCP server: mayfly run --class researcher --user-token demo.jwt -- node agent.mjs URL
import { current } from "@mayfly/agent";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const me = await current();
const authProvider = me.authProvider("https://search.example");
const client = new Client({ name: "agent", version: "1.0.0" });
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2]), { authProvider }));
  const { content } = await client.callTool({ name: "search", arguments: { topic: "ants" } });
  console.log(content[0].text);
} finally {
  await client.close();
  me.close();
}
