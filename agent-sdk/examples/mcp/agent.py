"""An agent that calls a tool of an MCP server: mayfly run --class researcher --user-token demo.jwt -- python agent.py URL"""

import asyncio
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import mayfly


async def main(url: str) -> None:
    me = mayfly.current()
    async with (
        httpx2.AsyncClient(auth=me.auth("https://search.example")) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        answer = await client.call_tool("search", {"topic": "ants"})
        print(answer.content[0].text)


asyncio.run(main(sys.argv[1]))
