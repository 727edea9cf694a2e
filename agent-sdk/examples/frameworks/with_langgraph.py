"""LangGraph, each node an agent of its own: mayfly run --class researcher --user-token demo.jwt -- python with_langgraph.py URL"""

import asyncio
import sys
from typing import TypedDict

from fastmcp import Client
from langgraph.graph import END, START, StateGraph

import mayfly


class State(TypedDict):
    topic: str
    found: str


async def search(state: State) -> State:
    # It may search and no more, ends with the block, and acts for the same user. It has no key: this process presents.
    async with (
        mayfly.current().spawn("worker", scopes=["search:read"], keyless=True) as me,
        Client(sys.argv[1], auth=me.auth("https://search.example")) as client,
    ):
        answer = await client.call_tool("search", {"topic": state["topic"]})
    return {"topic": state["topic"], "found": answer.content[0].text}


graph = StateGraph(State).add_node("search", search).add_edge(START, "search").add_edge("search", END).compile()
print(asyncio.run(graph.ainvoke({"topic": "ants", "found": ""}))["found"])
