"""pydantic-ai: mayfly run --class researcher --user-token demo.jwt -- python with_pydantic_ai.py URL"""

import sys

from fastmcp import Client
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset

import mayfly

me = mayfly.current()
tools = MCPToolset(Client(sys.argv[1], auth=me.auth("https://search.example")))
agent = Agent("openai-chat:gpt-4o-mini", toolsets=[tools])
print(agent.run_sync("What is known of ants?").output)
