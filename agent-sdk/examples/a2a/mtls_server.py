"""A2A over mutual TLS: mayfly run --class worker --user-token demo.jwt -- python mtls_server.py PORT spiffe://…/agent/researcher/"""

import sys

import uvicorn
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, SecurityRequirement, SecurityScheme, StringList
from service import app

import mayfly

port, callers = int(sys.argv[1]), sys.argv[2]
card = AgentCard(
    name="search", description="Searches.", version="1", capabilities=AgentCapabilities(), default_input_modes=["text/plain"]
)
card.supported_interfaces.append(
    AgentInterface(url=f"https://127.0.0.1:{port}/a2a", protocol_binding="JSONRPC", protocol_version="1.0")
)
scheme = SecurityScheme()
scheme.mtls_security_scheme.SetInParent()
card.security_schemes["mtls"].CopyFrom(scheme)
card.security_requirements.append(SecurityRequirement(schemes={"mtls": StringList()}))

# Each connection has the newest certificate, and whoever is not one of the callers does not get past the handshake.
ours = mayfly.current().ssl_context(callers, server=True)
uvicorn.run(app(card), host="127.0.0.1", port=port, ssl_context_factory=lambda config, default: ours)
