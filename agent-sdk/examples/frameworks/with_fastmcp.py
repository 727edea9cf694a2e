"""FastMCP: mayfly run --class researcher --user-token demo.jwt -- python with_fastmcp.py URL"""

import asyncio
import sys

from fastmcp import Client

import mayfly


async def main(url: str) -> None:
    me = mayfly.current()
    async with Client(url, auth=me.auth("https://search.example")) as client:
        answer = await client.call_tool("search", {"topic": "ants"})
        print(answer.content[0].text)


asyncio.run(main(sys.argv[1]))
