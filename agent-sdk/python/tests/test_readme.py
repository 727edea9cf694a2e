"""The page of the package as a reader follows it: each program and each `$` line, in order, from an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from mayfly.testing import issuer


def test_every_program_and_line_of_the_page_does_what_it_says(package: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (package / "README.md").read_text(), re.M | re.S)
    seen: list[str] = []
    said: dict[str, str] = {}
    with issuer() as dev:
        python = str(Path(sys.executable).parent)
        (dev.folder / "agent-sdk").symlink_to(package.parent)
        # The binary may have another name.
        (dev.folder / "bin").mkdir()
        (dev.folder / "bin/mayfly").symlink_to(Path(dev.binary).resolve())
        path = os.pathsep.join([str(dev.folder / "bin"), python, os.environ["PATH"]])
        environment = dev.environment({"PATH": path, "MAYFLY": dev.binary})
        # The page starts an issuer in the folder, and so does this test.
        del environment["MAYFLY_HOME"], environment["MAYFLY_SERVER"]
        for language, text in blocks:
            if language == "python":
                name = re.match(r"# (\w+\.py)\n", text)
                assert name, f"a program says where it is saved: {text}"
                (dev.folder / name[1]).write_text(text)
                continue
            for line in text.splitlines() if language == "console" else ():
                assert line.startswith("$ ")
                command = line[2:]
                seen.append(command)
                if "runs until Ctrl-C" in command:
                    assert command.startswith("mayfly dev ")
                    continue
                done = subprocess.run(
                    ["sh", "-c", command], cwd=dev.folder, env=environment, capture_output=True, text=True, timeout=120
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                said[command.split()[-1]] = done.stdout
    assert len(seen) == 12
    shown = next(text for text in said.values() if text.startswith("spiffe://dev.mayfly.test/agent/researcher/"))
    assert "sub='demo'" in shown and shown.rstrip().split()[-1].startswith("ey")
    assert re.search(r"I am spiffe://.*\nI act for demo and may .*search:read\na token: ey.*\nfor search: ey", said["agent.py"])
    assert "ants: worker for demo, True\nbees: worker for demo, True\nEXCEEDS_AUTHORITY - " in said["lead.py"]
    assert said["nodes.py"] == "ants: worker for demo, True\nbees: worker for demo, True\n"
    spent = said["spend.py"].splitlines()
    assert spent[0] == "left of the reservation: 0.06" and spent[1] == "1000000 tokens left for worker - ask development", spent
    assert "usd 0.19 of 10" in spent and "tokens 0 of 1000000" in spent, spent
    assert said["pair.py"] == "hello worker\n"
    assert "1 passed" in said["test_mine.py"]
