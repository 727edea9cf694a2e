"""The examples for MCP: an agent calls a tool of a server that asks a real guard."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.testing import Dev


@pytest.fixture(scope="session")
def url(dev: Dev, package: Path) -> Iterator[str]:
    """The address of a server with a guard beside it."""
    (dev.folder / "t").write_text(json.loads(dev.cli("join", "guard", "-o", "json"))["token"])
    dev.cli("redeem", "--ticket-file", "t", "--out", "mcp-guard")
    socket = dev.folder / "mcp.sock"
    beside = [dev.binary, "guard", "--as", "mcp-guard", "--listen", f"unix:{socket}"]
    server = [sys.executable, str(package.parent / "examples/mcp/server.py"), "0"]
    environment = dev.environment({"MAYFLY_GUARD": f"unix:{socket}"})
    with (
        subprocess.Popen(beside, cwd=dev.folder, env=environment, stdout=subprocess.PIPE, text=True) as guard,
        subprocess.Popen(server, cwd=dev.folder, env=environment, stderr=subprocess.PIPE, text=True) as running,
    ):
        try:
            assert guard.stdout is not None and running.stderr is not None
            assert any("ready" in line for line in iter(guard.stdout.readline, ""))
            lines = iter(running.stderr.readline, "")
            yield next(found[1] for line in lines if (found := re.search(r"running on (http://\S+)", line))) + "/mcp"
        finally:
            for process in (running, guard):
                process.terminate()


@pytest.mark.skipif(sys.platform != "linux", reason="mayfly run is for Linux")
def test_an_agent_calls_a_tool_and_the_server_knows_for_whom(dev: Dev, package: Path, url: str) -> None:
    pytest.importorskip("mcp")
    examples = package.parent / "examples/mcp"
    assert all(len((examples / name).read_text().splitlines()) <= 30 for name in ("agent.py", "server.py"))

    def calls(agent_class: str, *options: str) -> str:
        command = [sys.executable, str(examples / "agent.py"), url]
        process = dev.run(agent_class, command, options=options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=60)
        return str(out) if process.returncode == 0 else f"failed: {err}"

    assert re.fullmatch(r"ants for demo by spiffe://dev\.mayfly\.test/agent/researcher/\S+\n", calls("researcher"))
    refused = calls("researcher", "--scope", "files:read")
    assert refused.startswith("failed: ") and "Server returned an error response" in refused


@pytest.mark.skipif(sys.platform != "linux", reason="mayfly run is for Linux")
def test_each_framework_carries_user_and_agent_to_the_server(dev: Dev, package: Path, url: str) -> None:
    pytest.importorskip("mcp")
    # The other frameworks run in `tests/oracles/frameworks`, each in an environment of its own.
    modules = {"with_fastmcp.py": "fastmcp", "with_langgraph.py": "langgraph"}
    programs = [package.parent / "examples/frameworks" / name for name in modules]
    running: dict[str, subprocess.Popen[str]] = {}
    for program in programs:
        if importlib.util.find_spec(modules[program.name]) is not None:
            command = [sys.executable, str(program), url]
            running[program.name] = dev.run("researcher", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for name, process in running.items():
        out, err = process.communicate(timeout=120)
        # The node of the graph is the sub-agent, and not the process.
        kind = "worker" if name == "with_langgraph.py" else "researcher"
        expected = rf"for demo by spiffe://dev\.mayfly\.test/agent/{kind}/"
        assert process.returncode == 0 and re.search(expected, out), f"{name}: {out}{err}"
