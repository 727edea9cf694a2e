"""ADK keeps one session while the header stays the same: calls over several lives of the certificate, by the example's own callback."""

import asyncio
import importlib.util
import pathlib
import sys
import time

url, example = sys.argv[1:]


async def main() -> None:
    text = pathlib.Path(example).read_text().replace("asyncio.run(main(sys.argv[1]))", "")
    names: dict = {}
    exec(compile(text, example, "exec"), names)
    tools = names["McpToolset"](
        connection_params=names["StreamableHTTPConnectionParams"](url=url), header_provider=names["headers"]
    )
    from google.adk.agents import LlmAgent
    from google.adk.runners import InMemoryRunner

    runner = InMemoryRunner(LlmAgent(name="researcher", model="gemini-2.5-flash", tools=[tools]))
    expiries, sessions = set(), set()
    until = time.monotonic() + 40
    for n in range(10_000):
        events = await runner.run_debug("What is known of ants?", session_id=str(n), quiet=True)
        assert "for demo by" in events[-1].content.parts[0].text, events[-1]
        sessions.add(len(tools._mcp_session_manager._sessions))
        expiries.add(names["me"].expires_at)
        if len(expiries) > 3:
            break
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
    assert sessions == {1}, sessions
    print(f"{n + 1} runs over {len(expiries)} certificates, one session")
    await tools.close()


assert importlib.util.find_spec("google.adk")
asyncio.run(main())
