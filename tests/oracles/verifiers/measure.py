"""For each verifier: an agent is served, revoked, and refused; how long after the receipt of the revocation?

measure.py MAYFLY ROUNDS NAME=KIND:WHERE…, where KIND is bearer, mtls, login, psql, waits, bao or jwks. Prints a table in Markdown. Exits 1 if a verifier refuses an agent
that lives, or serves one that was revoked for longer than PATIENCE; waits, bao and jwks are for those that cannot hear of a revocation, and are checked not to.
"""

import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

mayfly, rounds, *ways = sys.argv[1:]
# Seconds.
PATIENCE = 30
# So many refusals in a row are one: a server that reads its files again may have old and new processes for a moment.
STEADY = 5


def bearer(where, folder):
    """Requests on one connection, which is opened again if the other end has closed it."""
    url, token = urlsplit(where), open(f"{folder}/svid.jwt").read().strip()
    tls = ssl._create_unverified_context() if url.scheme == "https" else None
    connection = None

    def ask():
        nonlocal connection
        for _ in range(2):
            fresh = connection is None
            if fresh:
                made = http.client.HTTPSConnection if tls else http.client.HTTPConnection
                connection = made(url.hostname, url.port, timeout=5, **({"context": tls} if tls else {}))
            try:
                connection.request("GET", url.path, headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                answer.read()
                return answer.status == 200, answer.status
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                connection, failed = None, e
                if fresh:
                    return False, repr(failed)
        return False, "closed"

    return ask


def mtls(where, folder, method="GET"):
    """Each request with a handshake of its own."""
    url = urlsplit(where)

    def ask():
        tls = ssl._create_unverified_context()
        tls.load_cert_chain(f"{folder}/svid.pem", f"{folder}/key.pem")
        connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=5, context=tls)
        try:
            connection.request(method, url.path)
            status = connection.getresponse().status
            return status == 200, status
        except (OSError, http.client.HTTPException) as e:
            return False, repr(e)
        finally:
            connection.close()

    return ask


def login(where, folder):
    """The same for a login of OpenBao."""
    return mtls(where, folder, "POST")


def bao(where, folder):
    """A login of OpenBao by token."""
    url, token = urlsplit(where), open(f"{folder}/svid.jwt").read().strip()
    tls = ssl._create_unverified_context()

    def ask():
        connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=5, context=tls)
        try:
            connection.request("POST", url.path, json.dumps({"role": "agents", "jwt": token}))
            answer = connection.getresponse()
            return answer.status == 200, answer.read()
        finally:
            connection.close()

    return ask


def psql(where, folder):
    """Each question with a connection of its own."""
    program, port = where.rsplit(":", 1)
    target = f"host=127.0.0.1 port={port} dbname=postgres user=worker sslmode=require sslcert={folder}/svid.pem sslkey={folder}/key.pem"

    def ask():
        done = subprocess.run([program, target, "-qAtc", "select 1"], capture_output=True, text=True)
        return done.returncode == 0, done.stderr[-200:]

    return ask


def cli(*args):
    return json.loads(subprocess.run([mayfly, *args, "-o", "json"], check=True, capture_output=True, text=True).stdout)


def revoke(agent):
    """Revokes an agent, and returns when the receipt was there."""
    with subprocess.Popen([mayfly, "revoke", "--agent", agent], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout.read(1), "no receipt"
        received = time.monotonic()
    assert child.returncode == 0
    return received


def spawn():
    return cli("spawn", "--class", "worker", "--user-token", "demo.jwt", "--audience", "https://search.example", "--out", "agent", "--force")


def one(kind, where):
    """Seconds from the receipt to the first refusal after which no request is served; 0 if that was there first."""
    agent = spawn()
    ask, until = {"bearer": bearer, "mtls": mtls, "login": login, "psql": psql}[kind](where, "agent"), time.monotonic() + PATIENCE
    while not (answer := ask())[0]:
        assert time.monotonic() < until, f"a new agent is not served: {answer[1]}"
        time.sleep(0.02)
    refused = []

    def poll():
        since, row, until = None, 0, time.monotonic() + PATIENCE
        while row < STEADY and time.monotonic() < until:
            if ask()[0]:
                since, row = None, 0
            else:
                since, row = since or time.monotonic(), row + 1
            time.sleep(0.001)
        if row == STEADY:
            refused.append(since)

    thread = threading.Thread(target=poll)
    thread.start()
    received = revoke(agent["agent_id"])
    thread.join()
    assert refused, f"a revoked agent is served {PATIENCE} seconds later"
    return max(0, refused[0] - received)


def waits(ask):
    """Seconds that a token lasts, for a server that only waits for its end. Fails if it hears of the revocation."""
    import jwt

    agent = spawn()
    ask, until = ask("agent"), time.monotonic() + PATIENCE
    while not (answer := ask())[0]:
        assert time.monotonic() < until, f"a new agent is not served: {answer[1]}"
        time.sleep(0.02)
    revoke(agent["agent_id"])
    time.sleep(2)
    assert ask()[0], "it heard of the revocation"
    claims = jwt.decode(open("agent/svid.jwt").read().strip(), options={"verify_signature": False})
    return claims["exp"] - claims["iat"]


def deaf(where):
    """Seconds that a token lasts, for a verifier that only waits for its end. Fails if it hears of the revocation."""
    import jwt

    ca, issuer = where.split(",", 1)
    keys = jwt.PyJWKClient(f"{issuer}/oauth/jwks", ssl_context=ssl.create_default_context(cafile=ca))
    agent = spawn()
    token = open("agent/svid.jwt").read().strip()

    def claims():
        key = keys.get_signing_key_from_jwt(token)
        return jwt.decode(token, key, algorithms=["ES256"], audience="https://search.example", issuer=issuer)

    before = claims()
    revoke(agent["agent_id"])
    time.sleep(2)
    assert claims() == before
    return before["exp"] - before["iat"]


print("| verifier | p50 | p99 |\n|---|---|---|")
for way in ways:
    name, target = way.split("=", 1)
    kind, where = target.split(":", 1)
    try:
        if kind in ("jwks", "waits", "bao"):
            asks = {"waits": bearer, "bao": bao}
            lasts = deaf(where) if kind == "jwks" else waits(lambda folder, kind=kind, where=where: asks[kind](where, folder))
            print(f"| {name} | until the token expires | {lasts} s |", flush=True)
            continue
        took = sorted(one(kind, where) for _ in range(int(rounds)))
    except AssertionError as e:
        sys.exit(f"{name}: {e}")
    at = lambda share: took[min(len(took) - 1, int(len(took) * share))] * 1000
    print(f"| {name} | {at(0.5):.0f} ms | {at(0.99):.0f} ms |", flush=True)
