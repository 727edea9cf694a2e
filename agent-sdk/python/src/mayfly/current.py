"""Where the identity of this process comes from: `mayfly run`, another Workload API, a ticket or a folder."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from .certificates import new_key, request
from .errors import Expired, Forked, NoIdentity, Unusable
from .folder import Saved, issuer_of
from .identity import Identity
from .issuer import REDEEM, RENEW, Connection, Issuer, insist, root_of
from .keeper import Current
from .own import Own, answered, lease_of
from .ticket import PREFIX, Ticket
from .v1 import mayfly_pb2 as api
from .workload.served import Served

#: Seconds for a first connection, and for an identity to arrive from a Workload API.
PATIENCE = 10.0

_lock = threading.Lock()
_of_process: tuple[int, Identity] | None = None
#: Whether an identity was opened in this process; and in a process that was forked, whether it was before the fork.
#: gRPC has threads and locks of its own from its first channel on. In a forked process the threads are missing, and the locks may
#: be held for ever: calls crash or hang now and then, also where everything was closed before.
_opened = False
_opened_before_fork = False


def current(source: str | os.PathLike[str] | None = None, *, server: str | None = None, patience: float = PATIENCE) -> Identity:
    """The identity of this process.

    Without `source` it is that of `mayfly run` or of another Workload API (`SPIFFE_ENDPOINT_SOCKET`), or else that of the ticket
    in `MAYFLY_TICKET`; it is opened once for each process. `source` is a ticket, a file with a ticket, the folder of an agent or
    a workload, or the address of a Workload API, and is opened at each call.

    The folder of an agent is taken over: its certificate is renewed at once under a new key, and from then on the files are an
    outdated copy that nobody may use. Give a process that restarts a ticket of its own.

    `server`: `host:port` of the issuer; by default that of the ticket, `MAYFLY_SERVER`, that which the folder names, or that of
    the home (`MAYFLY_HOME`).
    `patience`: seconds. Raises `NoIdentity`, `Unusable`, `Unavailable`, `Denied`, `Revoked`, or `Forked` in a process whose parent
    had opened an identity when it forked.
    """
    global _opened
    if _opened_before_fork:
        raise Forked(
            "forked_in_use",
            "this process was forked after its parent had opened an identity, and gRPC works in no such process: open none "
            "before the fork (with gunicorn: in `post_fork`), or start a new program",
        )
    _opened = True
    if source is not None:
        return _open(os.fspath(source), server, patience)
    global _of_process
    with _lock:
        if _of_process is None or _of_process[0] != os.getpid() or _of_process[1].ended is not None:
            _of_process = (os.getpid(), _from_environment(server, patience))
        return _of_process[1]


def Workload(source: str | os.PathLike[str], *, server: str | None = None) -> Identity:
    """The identity of a workload, which spawns agents: from its folder, a join token, or a file with one.

    The certificate of a folder is used as it is and renewed in memory. Raises as `current` does, and `Unusable` for an agent.
    """
    identity = current(source, server=server)
    if identity.is_agent:
        identity.close()
        raise Unusable("not_a_workload", f"`{identity.id}` is an agent: call mayfly.current(…)")
    return identity


def _from_environment(server: str | None, patience: float) -> Identity:
    if endpoint := os.environ.get("SPIFFE_ENDPOINT_SOCKET"):
        return Identity(Served(endpoint, patience, server or _server_of(None)))
    if ticket := os.environ.get("MAYFLY_TICKET"):
        return _redeem(Ticket.parse(ticket.strip()), patience)
    raise NoIdentity(
        "no_identity", "start this program with `mayfly run --class CLASS -- …`, set MAYFLY_TICKET, or give a folder or ticket"
    )


def _open(source: str, server: str | None, patience: float) -> Identity:
    if source.startswith(("unix:", "tcp://")):
        return Identity(Served(source, patience, server or _server_of(None)))
    if source.startswith(PREFIX):
        return _redeem(Ticket.parse(source.strip()), patience)
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, server)
    try:
        text = path.read_text(errors="replace") if path.stat().st_size < 4096 else ""
    except OSError as e:
        raise Unusable("io", f"`{source[:64]}` is no folder, file, ticket or socket: {e.strerror}") from None
    return _redeem(Ticket.parse(text.strip()), patience)


def _redeem(ticket: Ticket, patience: float) -> Identity:
    at, key = Issuer(ticket.address, ticket.trust_domain), new_key()
    root = insist(lambda: root_of(ticket, patience), time.sleep)
    connection = Connection(at, None, (root,))
    try:
        # The issuer gives the same answer to the same key, so a lost answer can be asked for again.
        message = api.RedeemRequest(secret=ticket.secret, csr=request(key))
        got = insist(lambda: connection.call(REDEEM, message), time.sleep)
    finally:
        connection.close()
    return Identity(Own(at, answered(key, got), lease_of(got)))


def _from_folder(folder: Path, server: str | None) -> Identity:
    saved = Saved.read(folder)
    if saved.credential.leaf.expires_at <= time.time():
        raise Expired("expired", f"the certificate in `{folder}` has expired: spawn another agent, or redeem a ticket")
    address = server or _server_of(folder)
    if address is None:
        raise NoIdentity("no_issuer", "it is not known where the issuer is: set MAYFLY_SERVER=host:port, or give server=…")
    at = Issuer(address, saved.credential.trust_domain)
    if "/agent/" not in saved.credential.leaf.spiffe_id:
        return Identity(Own(at, Current(saved.credential, saved.roots), None))
    key = new_key()
    connection = Connection(at, saved.credential, saved.roots)
    try:
        # The issuer renews again as long as the successor was not used, so a lost answer can be asked for again.
        message = api.RenewRequest(csr=request(key))
        got = insist(lambda: connection.call(RENEW, message), time.sleep)
    finally:
        # ORDER: before the renewed certificate is used, so that nothing connects with its predecessor any more.
        connection.close()
    first = answered(key, got)
    if first.credential.leaf.spiffe_id != saved.credential.leaf.spiffe_id:
        raise Unusable("answer", "the certificate has another SPIFFE ID")
    return Identity(Own(at, first, lease_of(got)))


def _server_of(folder: Path | None) -> str | None:
    """The address of the issuer: from the environment, the folder, or the home of a development issuer."""
    if address := os.environ.get("MAYFLY_SERVER"):
        return address
    if folder is not None and (named := issuer_of(folder)):
        return named
    homes = [Path(os.environ.get("MAYFLY_HOME") or ".mayfly")]
    if folder is not None and folder.absolute().parent.name == "workloads":
        homes.insert(0, folder.absolute().parent.parent)
    for home in homes:
        try:
            address = json.loads((home / "endpoint.json").read_text())["grpc"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return str(address)
    return None


def _after_fork() -> None:
    global _lock, _opened_before_fork
    # Another thread of the parent may have held it.
    _lock = threading.Lock()
    _opened_before_fork = _opened


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
