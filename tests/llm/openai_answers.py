"""What OpenAI's forms may answer, whole and streamed, and what is to be heard of it, whoever asked.

With what servers of these forms leave out and repeat, against the documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.llm.recorded import Told, Usage

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
USED = Usage(9, 0, 0, 4)


def call(name: str = "f", arguments: Any = '{"a": 1}', **more: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}} | more


def free(name: str = "f", words: str = "x") -> dict[str, Any]:
    return {"id": "c1", "type": "custom", "custom": {"name": name, "input": words}}


F = ("f", {"a": 1})
NOTE = {
    "type": "url_citation",
    "url_citation": {"start_index": 0, "end_index": 2, "title": "t", "url": "https://x.test"},
}
ROW = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}
DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2, "audio_tokens": 1, "text_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0, "accepted_prediction_tokens": 1},
}

# Whole answers of chat completions: what stands in the choice and beside it, and what is heard.
CHATS: dict[str, tuple[dict[str, Any], dict[str, Any], Told]] = {
    "plain": ({"message": {"content": "hi"}, "finish_reason": "stop"}, {}, Told("hi", finish="stop", usage=USED)),
    "length": ({"message": {"content": "hi"}, "finish_reason": "length"}, {}, Told("hi", finish="length", usage=USED)),
    "filtered": (
        {"message": {"content": "h"}, "finish_reason": "content_filter"},
        {},
        Told("h", finish="filter", usage=USED),
    ),
    "nothing said": ({"message": {"content": None}, "finish_reason": "stop"}, {}, Told(finish="stop", usage=USED)),
    "no content field": ({"message": {}, "finish_reason": "stop"}, {}, Told(finish="stop", usage=USED)),
    "parts": (
        {"message": {"content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
         "finish_reason": "stop"},
        {},
        Told("hi", finish="stop", usage=USED),
    ),
    "the object that was asked for": (
        {"message": {"content": {"a": [1, "é"]}}, "finish_reason": "stop"},
        {},
        Told('{"a":[1,"é"]}', finish="stop", usage=USED),
    ),
    "refused": (
        {"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"},
        {},
        Told("no", finish="stop", usage=USED, refused=True),
    ),
    "thinking": (
        {"message": {"content": "hi", "reasoning_content": "hm"}, "finish_reason": "stop"},
        {},
        Told("hi", "hm", finish="stop", usage=USED),
    ),
    "calls": (
        {"message": {"content": "so", "tool_calls": [call(), call("g", "{}", id="c2")]}, "finish_reason": "tool_calls"},
        {},
        Told("so", tools=[F, ("g", {})], finish="tools", usage=USED),
    ),
    "a call that stops": (
        {"message": {"content": None, "tool_calls": [call()]}, "finish_reason": "stop"},
        {},
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "an older call": (
        {"message": {"content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
         "finish_reason": "function_call"},
        {},
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "a free-form call": (
        {"message": {"content": None, "tool_calls": [free()]}, "finish_reason": "tool_calls"},
        {},
        Told(tools=[("f", {"input": "x"})], finish="tools", usage=USED),
    ),
    "arguments as a table": (
        {"message": {"content": None, "tool_calls": [call(arguments={"a": 1}, id=None)]},
         "finish_reason": "tool_calls"},
        {},
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "no arguments": (
        {"message": {"content": None, "tool_calls": [call(arguments=None)]}, "finish_reason": "tool_calls"},
        {},
        Told(tools=[("f", {})], finish="tools", usage=USED),
    ),
    "notes and logprobs": (
        {"message": {"content": "hi", "annotations": [NOTE]}, "finish_reason": "stop",
         "logprobs": {"content": [ROW], "refusal": None}},
        {"service_tier": "default", "system_fingerprint": "fp"},
        Told("hi", finish="stop", usage=USED),
    ),
    "usage in tiers": (
        {"message": {"content": "hi"}, "finish_reason": "stop"},
        {"usage": USAGE | DETAILS, "service_tier": "priority"},
        Told("hi", finish="stop", usage=Usage(9, 3, 2, 4)),
    ),
    "usage null": ({"message": {"content": "hi"}, "finish_reason": "stop"}, {"usage": None}, Told("hi", finish="stop")),
    "no id, no index": (
        {"message": {"content": "hi"}, "finish_reason": "stop", "index": None},
        {"id": None, "created": None, "model": None},
        Told("hi", finish="stop", usage=USED),
    ),
}  # fmt: skip


def chat_body(choice: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m", "usage": USAGE}
    message = {"role": "assistant"} | choice["message"]
    return head | {"choices": [{"index": 0} | choice | {"message": message}]} | more


def delta(index: int = 0, finish: str | None = None, **told: Any) -> dict[str, Any]:
    return {"index": index, "delta": told, "finish_reason": finish}


def piece(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [delta(tool_calls=list(calls))]}


def begun(name: str, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}} | more


def more(arguments: str, **told: Any) -> dict[str, Any]:
    return {"function": {"arguments": arguments}} | told


END = {"choices": [delta(finish="stop")]}
ENDS_FOR_CALLS = {"choices": [delta(finish="tool_calls")]}
USES = {"choices": [], "usage": USAGE}
G = ("g", {"b": 2})

# Streams of chat completions, with what servers leave out and repeat.
STREAMS: dict[str, tuple[list[dict[str, Any]], Told]] = {
    "plain": (
        [{"choices": [delta(role="assistant", content="")]}, {"choices": [delta(content="h")]},
         {"choices": [delta(content="i")]}, END, USES],
        Told("hi", finish="stop", usage=USED),
    ),
    "the object that was asked for": (
        [{"choices": [delta(content={"a": 1})]}, END, USES],
        Told('{"a":1}', finish="stop", usage=USED),
    ),
    "no role, null delta, empty choices": (
        [{"choices": []}, {"choices": [{"index": 0, "delta": None}]}, {"choices": [delta(content="hi")]}, END, USES],
        Told("hi", finish="stop", usage=USED),
    ),
    "usage null in every chunk, then with the end": (
        [{"choices": [delta(content="hi")], "usage": None}, END | {"usage": USAGE}],
        Told("hi", finish="stop", usage=USED),
    ),
    "usage in every chunk": (
        [{"choices": [delta(content="h")], "usage": USAGE | {"completion_tokens": 1}},
         {"choices": [delta(content="i")], "usage": USAGE | {"completion_tokens": 3}}, END | {"usage": USAGE}],
        Told("hi", finish="stop", usage=USED),
    ),
    "no usage at all, index and end in one": (
        [{"choices": [{"delta": {"content": "hi"}, "finish_reason": "length"}]}],
        Told("hi", finish="length"),
    ),
    "refused": (
        [{"choices": [delta(refusal="n")]}, {"choices": [delta(refusal="o")]}, END, USES],
        Told("no", finish="stop", usage=USED, refused=True),
    ),
    "thinking": (
        [{"choices": [delta(reasoning_content="h")]}, {"choices": [delta(reasoning="m")]},
         {"choices": [delta(content="hi")]}, END, USES],
        Told("hi", "hm", finish="stop", usage=USED),
    ),
    "filtered": (
        [{"choices": [delta(content="h")]}, {"choices": [delta(finish="content_filter")]}, USES],
        Told("h", finish="filter", usage=USED),
    ),
    "calls as documented": (
        [piece(begun("f", index=0, id="c1")), piece(more('{"a"', index=0)), piece(more(": 1}", index=0)),
         piece(begun("g", index=1, id="c2")), piece(more('{"b": 2}', index=1)), ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "several calls in a chunk": (
        [piece(begun("f", index=0, id="c1"), begun("g", index=1, id="c2")),
         piece(more('{"a": 1}', index=0), more('{"b": 2}', index=1)), ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "calls in turn": (
        [piece(begun("f", index=0, id="c1")), piece(begun("g", index=1, id="c2")), piece(more('{"a"', index=0)),
         piece(more('{"b"', index=1)), piece(more(": 1}", index=0)), piece(more(": 2}", index=1)),
         ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "whole calls without an index": (
        [piece(begun("f", '{"a": 1}', id="c1")), piece(begun("g", '{"b": 2}', id="c2")), ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "one index for all calls": (
        [piece(begun("f", '{"a": 1}', index=0, id="c1")), piece(begun("g", '{"b": 2}', index=0, id="c2")),
         ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "neither index nor id": (
        [piece(begun("f", '{"a"')), piece(more(": 1}")), piece(begun("g", '{"b": 2}')), ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "neither index nor id, all in a chunk": (
        [piece(begun("f", '{"a"'), begun("g", '{"b"')), piece(more(": 1}"), more(": 2}")), ENDS_FOR_CALLS, USES],
        Told(tools=[F, G], finish="tools", usage=USED),
    ),
    "name and id with every piece": (
        [piece(begun("f", '{"a"', index=0, id="c1")), piece(begun("f", ": 1}", index=0, id="c1")),
         ENDS_FOR_CALLS, USES],
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "a name after the id": (
        [piece({"index": 0, "id": "c1", "type": "function"}), piece(begun("f", '{"a": 1}', index=0)),
         ENDS_FOR_CALLS, USES],
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "all in one chunk": (
        [{"choices": [delta(content="so", tool_calls=[begun("f", '{"a": 1}', index=0, id="c1")], finish="tool_calls")],
          "usage": USAGE}],
        Told("so", tools=[F], finish="tools", usage=USED),
    ),
    "an older call": (
        [{"choices": [delta(function_call={"name": "f", "arguments": ""})]},
         {"choices": [delta(function_call={"arguments": '{"a": 1}'})]},
         {"choices": [delta(finish="function_call")]}, USES],
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "a call that stops": (
        [piece(begun("f", '{"a": 1}', index=0, id="c1")), END, USES],
        Told(tools=[F], finish="tools", usage=USED),
    ),
    "other choices too": (
        [{"choices": [delta(content="hi"), delta(1, content="yo")]}, {"choices": [delta(1, finish="length")]},
         END, USES],
        Told("hi", finish="stop", usage=USED),
    ),
}  # fmt: skip


def chunk_events(chunks: Iterable[dict[str, Any]]) -> list[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    return [b"data: " + json.dumps(head | chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


# Whole answers of Responses.


def said(text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []} | more
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


THOUGHT = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
ITEM = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "c1",
    "name": "f",
    "arguments": '{"a": 1}',
    "status": "completed",
}
REFUSAL = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
           "content": [{"type": "refusal", "refusal": "no"}]}  # fmt: skip
RESPONSE_USAGE = {
    "input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "output_tokens_details": {"reasoning_tokens": 0},
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
}  # fmt: skip


def incomplete(reason: str | None) -> dict[str, Any]:
    return {"status": "incomplete", "incomplete_details": {"reason": reason} if reason else None}


FREE = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "f", "status": "completed"}
RESPONSES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], Told]] = {
    "plain": ([said("hi")], {}, Told("hi", finish="stop", usage=USED)),
    "nothing": ([], {}, Told(finish="stop", usage=USED)),
    "thinking": ([THOUGHT, said("hi")], {}, Told("hi", "hm", finish="stop", usage=USED)),
    "sealed thinking": (
        [THOUGHT | {"summary": [], "encrypted_content": "s"}, said("hi")],
        {},
        Told("hi", finish="stop", usage=USED),
    ),
    "open thinking": (
        [THOUGHT | {"summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}, said("hi")],
        {},
        Told("hi", "hm", finish="stop", usage=USED),
    ),
    "refused": ([REFUSAL], {}, Told("no", finish="stop", usage=USED, refused=True)),
    "a call": ([said("so"), ITEM], {}, Told("so", tools=[F], finish="tools", usage=USED)),
    "words for a free-form tool": (
        [said("so"), FREE | {"input": 'say "é"\n'}, FREE | {"id": "ctc_2", "call_id": "c2", "input": ""}],
        {},
        Told("so", tools=[("f", 'say "é"\n'), ("f", "")], finish="tools", usage=USED),
    ),
    "too long": ([said("hi")], incomplete("max_output_tokens"), Told("hi", finish="length", usage=USED)),
    "filtered": ([said("h")], incomplete("content_filter"), Told("h", finish="filter", usage=USED)),
    "too many messages": ([said("hi")], incomplete("max_messages"), Told("hi", finish="length", usage=USED)),
    "steered": ([said("hi")], incomplete("steered"), Told("hi", finish="length", usage=USED)),
    "cut for no reason": ([said("hi")], incomplete(None), Told("hi", finish="length", usage=USED)),
    "usage null": ([said("hi")], {"usage": None}, Told("hi", finish="stop")),
    "usage in tiers": (
        [said("hi")],
        {"usage": RESPONSE_USAGE | {"input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2}},
         "service_tier": "priority", "tool_usage": {"web_search": {"num_requests": 2}}},
        Told("hi", finish="stop", usage=Usage(9, 3, 2, 4)),
    ),
    "notes and logprobs": (
        [said("hi", annotations=[{"type": "url_citation", "url": "https://x.test", "title": "t", "start_index": 0,
                                  "end_index": 2}], logprobs=[ROW])],
        {},
        Told("hi", finish="stop", usage=USED),
    ),
}  # fmt: skip
# What else may be among the output: it is no answer by itself, and no accident.
RECORDS: list[dict[str, Any]] = [
    {"type": "file_search_call", "id": "x", "queries": [], "status": "completed"},
    {"type": "web_search_call", "id": "x", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "computer_call", "id": "x", "call_id": "c", "pending_safety_checks": [], "status": "completed"},
    {
        "type": "code_interpreter_call",
        "id": "x",
        "container_id": "c",
        "status": "completed",
        "code": "1",
        "outputs": [],
    },
    {"type": "image_generation_call", "id": "x", "status": "failed", "result": None, "error": {"message": "no"}},
    {"type": "local_shell_call", "id": "x", "call_id": "c", "status": "completed", "action": {"type": "exec"}},
    {"type": "shell_call", "id": "x", "call_id": "c", "status": "completed", "action": {"commands": []}},
    {"type": "apply_patch_call", "id": "x", "call_id": "c", "status": "completed", "operation": {}},
    {"type": "mcp_call", "id": "x", "arguments": "{}", "name": "n", "server_label": "s", "output": "o"},
    {"type": "mcp_list_tools", "id": "x", "server_label": "s", "tools": []},
    {"type": "mcp_approval_request", "id": "x", "arguments": "{}", "name": "n", "server_label": "s"},
    {"type": "tool_search_call", "id": "x", "arguments": {}, "execution": "server", "status": "completed"},
    {"type": "program", "id": "x", "call_id": "c", "code": "1", "fingerprint": "f"},
    {"type": "program_output", "id": "x", "call_id": "c", "result": "1", "status": "completed"},
    {"type": "compaction", "id": "x", "encrypted_content": "s"},
    {"type": "additional_tools", "id": "x", "role": "developer", "tools": []},
    {"type": "something_new", "id": "x", "content": "y"},
]
RESPONSES["records"] = ([*RECORDS, said("hi")], {}, Told("hi", finish="stop", usage=USED))


def response_body(output: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": "completed", "error": None,
        "incomplete_details": None, "model": "m", "output": output, "usage": RESPONSE_USAGE, "tools": [],
        "tool_choice": "auto", "parallel_tool_calls": True,
    } | more  # fmt: skip


def response_events(output: list[dict[str, Any]], more: dict[str, Any]) -> list[bytes]:
    """The least that a server may stream: items when they begin and are done, the deltas of words and arguments."""
    whole = response_body(output, more)
    told: list[dict[str, Any]] = [{"type": "response.created", "response": whole | {"output": [], "status": "queued"}}]
    for place, item in enumerate(output):
        at = {"output_index": place, "item_id": item.get("id"), "content_index": 0}
        told.append(
            {"type": "response.output_item.added", **at, "item": item | {"content": [], "arguments": "", "input": ""}}
        )
        for part in item["content"] if item["type"] == "message" else ():
            kind, field = ("output_text", "text") if "text" in part else ("refusal", "refusal")
            told.append(
                {"type": f"response.{kind}.delta", **at, "delta": part[field], "logprobs": part.get("logprobs")}
            )
            for n, note in enumerate(part.get("annotations", ())):
                told.append(
                    {"type": f"response.{kind}.annotation.added", **at, "annotation_index": n, "annotation": note}
                )
            told.append({"type": f"response.{kind}.done", **at, field: part[field]})
        if item["type"] == "function_call":
            told.append({"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]})
        pieces = item["input"] if item["type"] == "custom_tool_call" else ()
        told += [{"type": "response.custom_tool_call_input.delta", **at, "delta": piece} for piece in pieces]
        told.append({"type": f"response.{item['type']}.in_progress", **at})
        told.append({"type": "response.output_item.done", **at, "item": item})
    told.append({"type": f"response.{whole['status']}", "response": whole})
    told = [event | {"sequence_number": n} for n, event in enumerate(told)]
    return [b"event: " + event["type"].encode() + b"\ndata: " + json.dumps(event).encode() + b"\n\n" for event in told]
