"""OpenAI Agents: mayfly run --class researcher --user-token demo.jwt -- python with_openai_agents.py URL"""

import asyncio
import sys

from agents.mcp import MCPServerStreamableHttp

import mayfly


async def main(url: str) -> None:
    me = mayfly.current()
    # Give it to an agent with `Agent(…, mcp_servers=[server])`. The token is asked for at each request, so it is never an old one.
    async with MCPServerStreamableHttp({"url": url, "auth": me.auth("https://search.example")}) as server:
        answer = await server.call_tool("search", {"topic": "ants"})
        print(answer.content[0].text)


asyncio.run(main(sys.argv[1]))
