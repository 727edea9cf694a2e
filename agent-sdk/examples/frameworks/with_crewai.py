"""CrewAI, each member an agent of its own: mayfly run --class researcher --user-token demo.jwt -- python with_crewai.py URL"""

import asyncio
import sys

from crewai import LLM, Agent, Crew, Task
from crewai.tools import BaseTool
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

import mayfly

# It may search and no more, ends with the block, and acts for the same user. It has no key: this process presents.
with mayfly.current().spawn("worker", scopes=["search:read"], keyless=True) as me:
    # CrewAI's own client takes fixed headers, which hold an old token after a while: this one asks for each request.
    class Search(BaseTool):
        name: str = "search"
        description: str = "Searches."

        async def _run(self, topic: str) -> str:
            async with (
                streamablehttp_client(sys.argv[1], auth=me.auth("https://search.example")) as (r, w, _),
                ClientSession(r, w) as session,
            ):
                await session.initialize()
                return (await session.call_tool("search", {"topic": topic})).content[0].text

    searcher = Agent(role="searcher", goal="Find out.", backstory="Searches.", llm=LLM(model="gpt-4o-mini"), tools=[Search()])
    task = Task(description="What is known of ants?", expected_output="A sentence.", agent=searcher)
    print(Crew(agents=[searcher], tasks=[task]).kickoff())
