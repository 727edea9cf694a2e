"""A stock Python `spiffe` program under `mayfly run`: the Workload API until it is cut, or mTLS with another (`spiffe-tls`)."""
import os
import signal
import sys
import threading

from spiffe import JwtSource, JwtSvid, TrustDomain, WorkloadApiClient, X509Source
from spiffetls import ListenOptions, ServerTlsMode, dial, listen
from spiffetls.tlsconfig.authorize import authorize_member_of

AUDIENCE = "https://search.example"
DOMAIN = TrustDomain("dev.mayfly.test")


def whole():
    # The cut is read from the API; the SIGTERM that comes with it is not what ends us.
    cut = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: cut.set())
    client = WorkloadApiClient()
    seen, more = [], threading.Event()
    source = X509Source()

    def update():
        seen.append(source.get_x509_context().default_svid)
        more.set()

    update()
    source.subscribe_for_updates(update)
    while len({s.leaf.serial_number for s in seen}) < 4:
        assert more.wait(20), "no rotation"
        more.clear()
    ids = {str(s.spiffe_id) for s in seen}
    assert len(ids) == 1, ids
    spiffe_id = ids.pop()
    assert source.get_bundle_for_trust_domain(DOMAIN).x509_authorities
    token = client.fetch_jwt_svid(audience={AUDIENCE})
    held = client.validate_jwt_svid(token.token, AUDIENCE)
    keys = JwtSource()
    local = JwtSvid.parse_and_validate(token.token, keys.get_bundle_for_trust_domain(DOMAIN), {AUDIENCE})
    assert {str(t.spiffe_id) for t in (token, held, local)} == {spiffe_id}
    with open("python.rotated", "w") as file:
        file.write(spiffe_id + "\n")
    while not cut.wait(1):
        pass
    try:
        client.fetch_x509_svid()
        sys.exit("served after the cut")
    except Exception as error:  # noqa: BLE001: what it is stands in the file
        assert "no identity issued" in str(error), error
        with open("python.cut", "w") as file:
            file.write(str(error).replace("\n", " ") + "\n")


def line(connection):
    text = b""
    while not text.endswith(b"\n"):
        text += connection.recv(1024)
    return text.decode()


def serve(address):
    options = ListenOptions(tls_mode=ServerTlsMode.MTLS, authorize_fn=authorize_member_of(DOMAIN))
    listener = listen(address, X509Source(), options)
    with open("python.serves", "w") as file:
        file.write("\n")
    while True:
        connection, _ = listener.accept()
        connection.do_handshake()
        connection.sendall(f"python heard {line(connection)}".encode())
        connection.shutdown()


def call(address):
    connection = dial(address, X509Source(), authorize_fn=authorize_member_of(DOMAIN))
    connection.sendall(b"python\n")
    answer = line(connection)
    assert answer.endswith("python\n"), answer
    print(answer, end="")


mode, *rest = sys.argv[1:]
{"whole": whole, "serve": serve, "dial": call}[mode](*rest)
sys.stdout.flush()
# Threads of the sources may still wait for a retry.
os._exit(0)
