"""A2A with bearer tokens; a guard runs beside it (MAYFLY_GUARD): python oidc_server.py PORT ISSUER"""

import sys

import uvicorn
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, SecurityRequirement, SecurityScheme, StringList
from service import app

from mayfly.verify import Guard
from mayfly.verify.asgi import Middleware

port, issuer = int(sys.argv[1]), sys.argv[2]
card = AgentCard(
    name="search", description="Searches.", version="1", capabilities=AgentCapabilities(), default_input_modes=["text/plain"]
)
card.supported_interfaces.append(
    AgentInterface(url=f"http://127.0.0.1:{port}/a2a", protocol_binding="JSONRPC", protocol_version="1.0")
)
scheme = SecurityScheme()
scheme.open_id_connect_security_scheme.open_id_connect_url = f"{issuer}/.well-known/openid-configuration"
card.security_schemes["mayfly"].CopyFrom(scheme)
card.security_requirements.append(SecurityRequirement(schemes={"mayfly": StringList(list=["search:read"])}))

guarded = Middleware(app(card), Guard(audience="https://search.example"), ["search:read"], public=["/.well-known/agent-card.json"])
uvicorn.run(guarded, host="127.0.0.1", port=port)
