"""Google ADK: mayfly run --class researcher --user-token demo.jwt -- python with_adk.py URL"""

import asyncio
import sys

from google.adk.agents import LlmAgent
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams

import mayfly

me = mayfly.current()


async def headers(_: ReadonlyContext) -> dict[str, str]:
    # ADK has a session for each header that it sees. The token is the same one until half of its life.
    return {"Authorization": f"Bearer {await me.atoken('https://search.example')}"}


async def main(url: str) -> None:
    tools = McpToolset(connection_params=StreamableHTTPConnectionParams(url=url), header_provider=headers)
    runner = InMemoryRunner(LlmAgent(name="researcher", model="gemini-2.5-flash", tools=[tools]))
    events = await runner.run_debug("What is known of ants?", quiet=True)
    print(events[-1].content.parts[0].text)
    await tools.close()


asyncio.run(main(sys.argv[1]))
