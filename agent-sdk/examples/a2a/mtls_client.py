"""A2A over mutual TLS: mayfly run --class researcher --user-token demo.jwt -- python mtls_client.py URL spiffe://…/agent/worker/"""

import asyncio
import sys

import httpx
from a2a.client import ClientConfig, create_client
from a2a.helpers import get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest

import mayfly


async def main(url: str, peer: str) -> None:
    async with httpx.AsyncClient(verify=mayfly.current().ssl_context(peer)) as http:
        client = await create_client(url, ClientConfig(httpx_client=http))
        async for event in client.send_message(SendMessageRequest(message=new_text_message("ants", role=Role.ROLE_USER))):
            print(get_message_text(event.message))


asyncio.run(main(sys.argv[1], sys.argv[2]))
