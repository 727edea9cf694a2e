"""A model in the wire forms of OpenAI (chat completions and responses) and Gemini: it calls the tool `search` once, and then repeats what it said."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARGUMENTS = {"topic": "ants"}


def openai(asked: dict) -> dict:
    said = [message for message in asked["messages"] if message["role"] == "tool"]
    message: dict = {"role": "assistant", "content": f"Thought: done\nFinal Answer: {said[-1]['content']}" if said else None}
    if not said:
        # CrewAI puts the server's name before that of the tool.
        name = next(tool["function"]["name"] for tool in asked["tools"] if tool["function"]["name"].endswith("search"))
        call = {"name": name, "arguments": json.dumps(ARGUMENTS)}
        message["tool_calls"] = [{"id": "1", "type": "function", "function": call}]
    choice = {"index": 0, "message": message, "finish_reason": "stop" if said else "tool_calls"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [choice], "usage": usage}


def responses(asked: dict) -> dict:
    said = [item for item in asked["input"] if isinstance(item, dict) and item.get("type") == "function_call_output"]
    call = {
        "type": "function_call",
        "id": "1",
        "call_id": "1",
        "name": "search",
        "arguments": json.dumps(ARGUMENTS),
        "status": "completed",
    }
    if said:
        text = {"type": "output_text", "text": json.dumps(said[-1]["output"]), "annotations": []}
        call = {"type": "message", "id": "2", "role": "assistant", "status": "completed", "content": [text]}
    rest = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "status": "completed"}
    return {"id": "1", "object": "response", "created_at": 1, "model": asked["model"], "output": [call], **rest}


def gemini(asked: dict) -> dict:
    said = [part["functionResponse"] for content in asked["contents"] for part in content["parts"] if "functionResponse" in part]
    part = {"text": json.dumps(said[-1]["response"])} if said else {"functionCall": {"name": "search", "args": ARGUMENTS}}
    return {"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}]}


class Model(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        form = gemini if ":generateContent" in self.path else responses if self.path.endswith("/responses") else openai
        answer = json.dumps(form(asked)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
