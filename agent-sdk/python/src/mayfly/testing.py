"""A real issuer for tests: `mayfly dev` in a temporary folder, on loopback.

    with mayfly.testing.issuer() as dev:
        with dev.spawn("researcher") as agent:
            dev.revoke(agent=agent.id)

For pytest, write `pytest_plugins = ["mayfly.pytest_plugin"]` into `conftest.py`: the fixture `mayfly_issuer` is an issuer for
the whole session.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .current import Workload
from .errors import NoIdentity
from .identity import Identity
from .spawn import Spawn

__all__ = ["Dev", "issuer"]

_PATIENCE = 60.0


class Dev:
    """A running development issuer. Its users are `demo` and `guest`, its workload is `orchestrator`."""

    def __init__(self, folder: Path, binary: str, process: subprocess.Popen[bytes]) -> None:
        #: The working folder; the home is `.mayfly` in it.
        self.folder = folder
        #: Path of `mayfly`.
        self.binary = binary
        self._process = process
        self._workload: Identity | None = None

    @property
    def home(self) -> Path:
        """The folder of all its state."""
        return self.folder / ".mayfly"

    @property
    def endpoint(self) -> dict[str, Any]:
        """Its addresses, such as `grpc` and `trust_domain`."""
        found: dict[str, Any] = json.loads((self.home / "endpoint.json").read_text())
        return found

    @property
    def address(self) -> str:
        """`host:port` of the issuer."""
        return str(self.endpoint["grpc"])

    @property
    def workload(self) -> Identity:
        """The workload `orchestrator`, opened once."""
        if self._workload is None:
            self._workload = Workload(self.home / "workloads" / "orchestrator", server=self.address)
        return self._workload

    def user_token(self, user: str = "demo") -> str:
        """A fresh ID token of a user."""
        return self.cli("token", user).strip()

    def spawn(self, agent_class: str, *, user: str = "demo", **asked: Any) -> Spawn:
        """Spawns an agent of the workload for a user; takes what `Identity.spawn` takes."""
        return self.workload.spawn(agent_class, user_token=self.user_token(user), **asked)

    def ticket(self, agent_class: str, *, user: str = "demo") -> str:
        """A ticket for an agent. It lasts a minute."""
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            token = Path(out) / "user.jwt"
            token.write_text(self.user_token(user))
            self.cli("spawn", "--class", agent_class, "--user-token", str(token), "--ticket", "--out", out)
            return (Path(out) / "ticket").read_text().strip()

    def saved(self, agent_class: str, *, user: str = "demo") -> Path:
        """The folder of a new agent, as `mayfly spawn --out` writes it."""
        out = Path(tempfile.mkdtemp(prefix="agent-", dir=self.folder))
        (out / "user.jwt").write_text(self.user_token(user))
        self.cli("spawn", "--class", agent_class, "--user-token", str(out / "user.jwt"), "--out", str(out))
        return out

    def revoke(self, *, agent: str | None = None, user: str | None = None) -> None:
        """Revokes an agent, or a user (by name) with all their agents."""
        target = ("--agent", agent) if agent is not None else ("--user", f"dev/{user}")
        self.cli("revoke", *target)

    def reopen(self, user: str) -> None:
        """Lets a revoked user have new agents."""
        self.cli("reopen", "--user", f"dev/{user}")

    def agent(self, id: str) -> dict[str, Any]:
        """What the issuer knows of an agent."""
        found: dict[str, Any] = json.loads(self.cli("agents", "show", id, "-o", "json"))
        return found

    def cli(self, *arguments: str) -> str:
        """Runs `mayfly` with these arguments and returns its output. Raises `RuntimeError` with what it printed."""
        done = self._run(subprocess.run, arguments, capture_output=True, text=True, timeout=_PATIENCE)
        if done.returncode != 0:
            raise RuntimeError(f"mayfly {' '.join(arguments[:2])} exited with {done.returncode}: {done.stderr}")
        return str(done.stdout)

    def run(
        self, agent_class: str, command: Sequence[str], *, user: str = "demo", options: Sequence[str] = (), **popen: Any
    ) -> subprocess.Popen[Any]:
        """Starts a command under `mayfly run` (Linux). Close it as any process."""
        token = Path(tempfile.mkstemp(prefix="user-", dir=self.folder)[1])
        token.write_text(self.user_token(user))
        arguments = ("run", "--class", agent_class, "--user-token", str(token), *options, "--", *command)
        started: subprocess.Popen[Any] = self._run(subprocess.Popen, arguments, **popen)
        return started

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """The issuer answers nobody while the block runs."""
        return self._paused()

    @contextlib.contextmanager
    def _paused(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends the issuer."""
        if self._workload is not None:
            self._workload.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for programs that look for this issuer."""
        kept = {name: value for name, value in os.environ.items() if name not in _OURS}
        return {**kept, "MAYFLY_HOME": str(self.home), "MAYFLY_SERVER": self.address, **(more or {})}

    def _run(self, run: Any, arguments: Sequence[str], **how: Any) -> Any:
        how.setdefault("env", self.environment())
        return run([self.binary, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, **how)


_OURS = {"MAYFLY_HOME", "MAYFLY_SERVER", "MAYFLY_TICKET", "SPIFFE_ENDPOINT_SOCKET"}


@contextlib.contextmanager
def issuer(config: str | None = None) -> Iterator[Dev]:
    """Starts `mayfly dev` in a temporary folder, and ends it and removes the folder after the block.

    `config`: TOML that adds classes, workloads and limits. The binary is `$MAYFLY`, or `mayfly` in the path. Raises `NoIdentity`
    if there is none, and `RuntimeError` if it does not start.
    """
    binary = os.environ.get("MAYFLY") or shutil.which("mayfly")
    if not binary:
        raise NoIdentity("no_binary", "there is no `mayfly` in the path: install it, or set MAYFLY to the binary")
    with tempfile.TemporaryDirectory(prefix="mayfly-") as name:
        folder = Path(name)
        arguments = [binary, "dev"]
        if config is not None:
            (folder / "more.toml").write_text(config)
            arguments += ["--config", "more.toml"]
        log = folder / "dev.log"
        with log.open("wb") as out:
            environment = {name: value for name, value in os.environ.items() if name not in _OURS}
            process = subprocess.Popen(
                arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        dev = Dev(folder, binary, process)
        try:
            deadline = time.monotonic() + _PATIENCE
            while b"ready" not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"`mayfly dev` did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.02)
            yield dev
        finally:
            dev.stop()
