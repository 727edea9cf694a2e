"""An orchestrator in Python, with gRPC alone: one agent acts for a user, and its child does a part of the work.

Run the issuer in a terminal of its own, in the folder of this repository. PORT is that of `gRPC`, which `mayfly dev` prints:

    mayfly dev
    mayfly token demo > demo.jwt
    pip install -r agent-sdk/examples/python/requirements.txt
    mkdir stubs
    python -m grpc_tools.protoc -I proto --python_out=stubs --grpc_python_out=stubs mayfly/v1/mayfly.proto
    PYTHONPATH=stubs python agent-sdk/examples/python/orchestrator.py 127.0.0.1:PORT .mayfly/workloads/orchestrator demo.jwt

This program ends before its certificates expire. A longer one calls `Renew` with a new key, well before `svid.expires_at`.
"""
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from mayfly.v1 import mayfly_pb2 as api
from mayfly.v1 import mayfly_pb2_grpc as services

SEARCH = "https://search.example"
SECONDS = 10


@dataclass(repr=False)
class Identity:
    """What `mayfly redeem` writes into a folder, in PEM."""

    svid: bytes
    key: bytes
    bundle: bytes

    @classmethod
    def read(cls, folder):
        return cls(*((folder / name).read_bytes() for name in ("svid.pem", "key.pem", "bundle.pem")))

    def connect(self, address):
        """Speaks mTLS with the issuer as this identity.

        grpcio compares DNS names and addresses, and cannot ask for `spiffe://<trust domain>/issuer`. The bundle makes up for
        that: below its roots the issuer's own certificate is the only one with a name or an address; every workload and agent
        has a SPIFFE ID and nothing else, so none of them passes for the issuer. It holds as long as no other root is added to
        `bundle`.
        """
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.bundle, self.key, self.svid))


def main(address, folder, token_file):
    # 1. The workload, with the identity it joined with.
    with Identity.read(Path(folder)).connect(address) as channel:
        # 2. An agent for the user, with the scopes and the lifetime that the work needs. The answer includes its first token.
        lead, lead_id, first = spawn(
            services.IdentitiesStub(channel),
            "researcher",
            user_token=Path(token_file).read_text().strip(),
            scopes=["files:read", "search:read"],
            lease_seconds=600,
            jwt_audience=SEARCH,
        )
    print("lead", lead_id)
    print("token", first.spiffe_id)

    with lead.connect(address) as channel:
        identities = services.IdentitiesStub(channel)
        # 3. A child, spawned with the agent's certificate. It acts for the same user, without their token.
        worker, worker_id, _ = spawn(identities, "worker", scopes=["search:read"])
        print("worker", worker_id)

        # 4. A token for the child. It is valid for minutes, so mint one when it is needed.
        with worker.connect(address) as below:
            minted = services.IdentitiesStub(below).MintJwt(api.MintJwtRequest(audience=SEARCH), timeout=SECONDS)
        print("token", minted.svid.spiffe_id)

        # 5. A denial has a reason, which is the same in every release.
        try:
            spawn(identities, "worker", scopes=["mail:send"])
            sys.exit("a worker may send mail")
        except grpc.RpcError as error:
            info = reason(error)
            print("denied", error.code().name, info.domain, info.reason)

        # 6. The work is done. Children of the lead that still live end with it.
        identities.End(api.EndRequest(agent=worker_id), timeout=SECONDS)
        identities.End(api.EndRequest(), timeout=SECONDS)


def spawn(identities, class_, **asked):
    """Spawns an agent with a new key, which never leaves this process."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    # `class` is a keyword in Python.
    request = api.SpawnRequest(**{"class": class_}, csr=csr.public_bytes(serialization.Encoding.DER), **asked)
    got = identities.Spawn(request, timeout=SECONDS)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    identity = Identity(pem(got.svid.certificates), key.private_bytes(*form), pem(got.bundle.x509_authorities))
    return identity, got.svid.spiffe_id, got.jwt


def pem(certificates):
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode()


def reason(error):
    """The google.rpc.ErrorInfo of a denial; what has none is no denial, and is raised again."""
    info = ErrorInfo()
    status = rpc_status.from_call(error)
    if status and any(detail.Unpack(info) for detail in status.details):
        return info
    raise error


if len(sys.argv) != 4:
    sys.exit("give: issuer's address, folder, file with the user's token")
main(*sys.argv[1:])
