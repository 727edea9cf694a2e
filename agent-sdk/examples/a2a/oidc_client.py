"""A2A with bearer tokens: mayfly run --class researcher --user-token demo.jwt -- python oidc_client.py URL"""

import asyncio
import sys

from a2a.client import AuthInterceptor, ClientCallContext, CredentialService, create_client
from a2a.helpers import get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest

import mayfly

me = mayfly.current()


class Tokens(CredentialService):
    async def get_credentials(self, security_scheme_name: str, context: ClientCallContext | None) -> str:
        # Asked for at each call, so it is never an old one. The card says that it is a bearer token.
        return await me.atoken("https://search.example")


async def main(url: str) -> None:
    client = await create_client(url, interceptors=[AuthInterceptor(Tokens())])
    async for event in client.send_message(SendMessageRequest(message=new_text_message("ants", role=Role.ROLE_USER))):
        print(get_message_text(event.message))


asyncio.run(main(sys.argv[1]))
