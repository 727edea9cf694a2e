"""OpenAI Agents: mayfly run --class researcher --user-token demo.jwt -- python with_openai_agents.py URL"""

import asyncio
import sys

from agents import Agent, Runner
from agents.mcp import MCPServerStreamableHttp

import mayfly


async def main(url: str) -> None:
    me = mayfly.current()
    # The token is asked for at each request, so it is never an old one.
    async with MCPServerStreamableHttp({"url": url, "auth": me.auth("https://search.example")}) as server:
        agent = Agent(name="researcher", model="gpt-4o-mini", mcp_servers=[server])
        answer = await Runner.run(agent, "What is known of ants?")
        print(answer.final_output)


asyncio.run(main(sys.argv[1]))
