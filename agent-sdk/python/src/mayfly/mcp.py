"""MCP servers that name an authorization server: an agent is its client by a JWT-SVID, without a secret or a registration.

Needs the package `mcp`, 2.3 or later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import httpx2
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider
from mcp.shared.auth import JWT_BEARER_GRANT_TYPE, OAuthClientInformationFull, OAuthToken

from .errors import Revoked

__all__ = ["OAuth"]


class Client(Protocol):
    """Who asks for tokens: an `Identity`."""

    @property
    def id(self) -> str:
        """The client's name at the authorization server."""

    @property
    def ended(self) -> Revoked | None:
        """Why it has ended; `None` while it has not."""

    async def assertion(self, audience: str) -> str:
        """A new JWT for the authorization server."""


class Memory:
    """Tokens of one provider: nothing is written to disk."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        pass


class OAuth(PrivateKeyJWTOAuthProvider):
    """`httpx2.AsyncClient(auth=OAuth(me, url, issuer=…))` for an MCP server at `url`.

    The server says where its authorization server is (RFC 9728); its issuer must be `issuer`, and credentials go nowhere else.
    There the agent asks for an access token with its JWT-SVID, each time that one is needed:

    - as proof of the client (`client_credentials`), as an issuer of ours and MCP's extension for client credentials take it;
    - `federated=True`: as the grant itself (RFC 7523), for servers that take workload identities and know no such client;
    - `id_jag`: `async (issuer, resource) -> str` gives the grant, the ID-JAG of a company's provider, and the JWT-SVID is the
      proof of the client.

    Raises `Revoked` before anything is sent once the identity has ended.
    """

    def __init__(
        self,
        client: Client,
        server_url: str,
        *,
        issuer: str,
        scope: str | None = None,
        federated: bool = False,
        id_jag: Callable[[str, str], Awaitable[str]] | None = None,
    ) -> None:
        if federated and id_jag is not None:
            raise ValueError("either the JWT-SVID is the grant (`federated`), or the ID-JAG is")
        super().__init__(server_url, Memory(), client.id, client.assertion, scope, issuer)
        self._client, self._named, self._federated, self._id_jag = client, issuer, federated, id_jag

    async def _perform_authorization(self) -> httpx2.Request:
        request = await super()._perform_authorization()
        if not self._federated and self._id_jag is None:
            return request
        # What the client's proof was is the grant now, or stands beside it.
        form = dict(httpx2.QueryParams(request.content.decode()))
        form["grant_type"] = JWT_BEARER_GRANT_TYPE
        if self._id_jag is None:
            form["assertion"] = form.pop("client_assertion")
            del form["client_assertion_type"]
        else:
            form["assertion"] = await self._id_jag(self._named, form.get("resource", self.context.get_resource_url()))
        return httpx2.Request("POST", request.url, data=form)

    def _add_auth_header(self, request: httpx2.Request) -> None:
        ended = self._client.ended
        if ended is not None:
            raise ended
        super()._add_auth_header(request)

    def __repr__(self) -> str:
        return f"OAuth({self._client.id!r}, issuer={self._named!r})"
