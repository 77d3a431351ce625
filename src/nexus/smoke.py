"""One real request of each kind, and a bad one of each: `nexus smoke`.

Everything is real: the image of the receipt is drawn here and read by the OCR model, the photograph
comes with scikit-learn, the series and the table are made of plain arithmetic. A check passes when
what came back is right, not when something came back.
"""

from __future__ import annotations

import http.server
import importlib.util
import io
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

RECEIPT = ["CORNER BAKERY", "2 bread rolls 1.80", "1 apple cake 3.20", "TOTAL 5.00 EUR", "Thank you for your visit"]
FLOWER = (167, 85, 443, 358)
"""Where the flower is in scikit-learn's flower.jpg: x1 y1 x2 y2 in pixels."""
WORKFLOW = """
name: smoke-receipt-to-note
inputs: {image: {type: file}, webhook: {type: url, optional: true}}
steps:
  - {key: read, uses: vision.ocr, with: {image: "{{ inputs.image }}"}, retries: {max: 2}, timeout: 60}
  - {key: note, uses: llm.summarize, with: {text: "{{ steps.read.output.text }}", model: nexus-local},
     when: "len(steps.read.output.text) > 20"}
  - {key: keep, uses: file.write, with: {name: note.txt, content: "{{ steps.note.output.text }}"}}
  - {key: tell, uses: http.request, needs: [keep],
     with: {method: POST, url: "{{ inputs.webhook }}", json: {note: "{{ steps.note.output.text }}"}}}
"""


class SmokeFailed(Exception):
    """A request was not answered as it should be."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found: its name, whether it holds, what it saw, and how long it took (ms)."""

    what: str
    ok: bool
    result: str
    milliseconds: float


@dataclass(slots=True)
class Session:
    """What the checks share: the client, and the address of a webhook of their own, if one can be reached."""

    http: httpx2.Client
    hook: str | None
    heard: list[dict[str, str]]


Check = Callable[[Session], str]


def run_checks(client: httpx2.Client, *, webhook: bool) -> Iterator[Outcome]:
    """Yield the outcome of each check in turn. With `webhook`, the instance may call an address of this machine."""
    with _hook() as (address, heard):
        session = Session(client, address if webhook else None, heard)
        for what, check in CHECKS:
            started = time.perf_counter()
            try:
                result, ok = check(session), True
            except (SmokeFailed, httpx2.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
                result, ok = f"{type(error).__name__}: {error}"[:160], False
            yield Outcome(what, ok, result, (time.perf_counter() - started) * 1000)


def _expect(condition: bool, complaint: object) -> None:
    if not condition:
        raise SmokeFailed(str(complaint)[:160])


def _json(answer: httpx2.Response, status: int = 200) -> Any:
    _expect(answer.status_code == status, f"status {answer.status_code} instead of {status}: {answer.text}")
    return answer.json()


def _ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "nexus-local", "messages": [{"role": "user", "content": text}], "max_tokens": 24, **more}


def _chat(session: Session) -> str:
    body = _json(session.http.post("/v1/chat/completions", json=_ask("Say hello.", temperature=0)))
    text, usage = body["choices"][0]["message"]["content"], body["usage"]
    _expect(bool(text.strip()) and usage["completion_tokens"] > 0, body)
    return f"{text.strip()[:40]!r}, {usage['total_tokens']} tokens"


def _stream(session: Session) -> str:
    pieces: list[str] = []
    ended = False
    request = _ask("Count to five.", stream=True, stream_options={"include_usage": True})
    usage = None
    with session.http.stream("POST", "/v1/chat/completions", json=request) as answer:
        _expect(answer.status_code == 200, answer.status_code)
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                chunk = json.loads(line[6:])
                usage = chunk.get("usage") or usage
                pieces += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
    _expect(ended and "".join(pieces).strip() != "" and usage is not None, "no text, no usage or no [DONE]")
    return f"{len(pieces)} chunks"


def _embed(session: Session) -> str:
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell."]
    body = _json(session.http.post("/v1/embeddings", json={"model": "minilm-l6-v2", "input": texts}))
    first, near, far = (item["embedding"] for item in body["data"])
    close, apart = _dot(first, near), _dot(first, far)
    _expect(close > apart + 0.2 and math.isclose(_dot(first, first), 1, abs_tol=1e-3), (close, apart))
    return f"{len(first)} dimensions, near {close:.2f}, far {apart:.2f}"


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _ocr(session: Session) -> str:
    body = _json(session.http.post("/api/v1/vision/ocr", files={"image": ("receipt.png", receipt_png(), "image/png")}))
    read = body["text"].upper().replace(" ", "")
    _expect("CORNERBAKERY" in read and "5.00" in read, body["text"])
    return f"{len(body['results'])} lines by {body['model']}"


def _classify(session: Session) -> str:
    files = {"image": ("flower.jpg", photograph("flower.jpg"), "image/jpeg")}
    body = _json(session.http.post("/api/v1/vision/classify", files=files))
    best = body["results"][0]
    _expect(0 < best["score"] <= 1, best)
    return f"{best['label']} {best['score']:.2f} by {body['model']}"


def _detect(session: Session) -> str:
    # COCO knows no flowers: what the detectors agree on is where it is, not what it is called.
    files = {"image": ("flower.jpg", photograph("flower.jpg"), "image/jpeg")}
    body = _json(session.http.post("/api/v1/vision/detect", files=files, data={"threshold": "0.1"}))
    for found in body["results"]:
        left, top, right, bottom = found["box"]
        inside = 0 <= left < right <= body["image"]["width"] and 0 <= top < bottom <= body["image"]["height"]
        _expect(inside and found["score"] >= 0.1, found)
    best = max((_overlap(found["box"], FLOWER) for found in body["results"]), default=0.0)
    _expect(best > 0.5, f"nothing found where the flower is: {body['results']}")
    picture = session.http.post("/api/v1/vision/detect", params={"annotate": "png"}, files=files)
    _expect(picture.status_code == 200 and picture.content.startswith(b"\x89PNG"), picture.status_code)
    return f"{len(body['results'])} objects by {body['model']}, annotated PNG of {len(picture.content) // 1024} kB"


def _overlap(box: list[float], other: tuple[float, ...]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    area = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both
    return both / area


def _forecast(session: Session) -> str:
    files = {"file": ("sales.csv", monthly_csv(), "text/csv")}
    body = _json(session.http.post("/api/v1/forecasts", files=files, data={"horizon": "6"}))
    (series,) = body["series"]
    values, low, high = series["forecast"], series["lo-95"], series["hi-95"]
    _expect(len(values) == 6 and all(a < b < c for a, b, c in zip(low, values, high, strict=True)), series)
    truth = [_sales(month) for month in range(60, 66)]
    off = sum(abs(a - b) for a, b in zip(values, truth, strict=True)) / sum(truth)
    _expect(off < 0.1, f"{off:.1%} off")
    return f"{body['chosen']}, {off:.1%} off the truth"


def _train(session: Session) -> str:
    files = {"file": ("loans.csv", loans_csv(), "text/csv")}
    dataset = _json(session.http.post("/api/v1/datasets", files=files, data={"name": f"smoke-{time.time_ns()}"}), 201)
    name = f"smoke-{time.time_ns():x}"
    started = session.http.post(
        "/api/v1/training-runs", json={"name": name, "dataset_id": dataset["id"], "target": "repaid"}
    )
    _wait(session, _json(started, 202)["id"], 120)
    rows = [{"income": 5200, "debt": 300, "job": "clerk"}, {"income": 900, "debt": 4000, "job": "artist"}]
    body = _json(session.http.post(f"/api/v1/models/{name}/predict", json={"rows": rows}))
    labels = [item["label"] for item in body["predictions"]]
    _expect(labels == ["yes", "no"], body["predictions"])
    return f"version {body['version']}: {', '.join(labels)}"


def _workflow(session: Session) -> str:
    applied = session.http.post("/api/v1/workflows", content=WORKFLOW, headers={"content-type": "application/yaml"})
    _expect(applied.status_code in (200, 201), applied.text)
    files = {"file": ("receipt.png", receipt_png(), "image/png")}
    image = _json(session.http.post("/v1/files", files=files, data={"purpose": "vision"}))["id"]
    inputs = {"image": image, **({"webhook": session.hook} if session.hook else {})}
    started = session.http.post(f"/api/v1/workflows/{applied.json()['id']}/runs", json={"inputs": inputs})
    run = _wait(session, _json(started, 202)["id"], 120)
    kept = next(step["output"] for step in run["steps"] if step["key"] == "keep")
    note = session.http.get(f"/v1/files/{kept['file_id']}/content").text
    _expect(bool(note.strip()), "an empty note")
    if session.hook:
        _expect([call["key"] for call in session.heard] == [f"{run['id']}.tell"], session.heard)
        _expect(json.loads(session.heard[0]["body"]) == {"note": note}, session.heard)
    return f"{note.strip()[:48]!r}" + (", webhook called once" if session.hook else "")


def _wait(session: Session, run_id: str, seconds: float) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run: dict[str, Any] = _json(session.http.get(f"/api/v1/runs/{run_id}"))
        if run["status"] in ("succeeded", "failed", "cancelled"):
            _expect(run["status"] == "succeeded", run["error"])
            return run
        time.sleep(0.1)
    raise SmokeFailed(f"{run_id} did not end in {seconds:.0f} s")


def _dashboard(session: Session) -> str:
    answer = session.http.get("/", headers={"accept": "text/html"})
    _expect(answer.status_code == 200 and "<!doctype html" in answer.text.lower(), answer.status_code)
    return f"{len(answer.content)} bytes"


def _ledger(session: Session) -> str:
    until = time.monotonic() + 5
    kinds: set[str] = set()
    while time.monotonic() < until and not {"chat", "embedding", "vision.ocr", "forecast", "predict"} <= kinds:
        kinds = {item["kind"] for item in _json(session.http.get("/api/v1/invocations?limit=100"))["data"]}
        time.sleep(0.1)
    _expect({"chat", "embedding", "vision.ocr", "forecast", "predict"} <= kinds, kinds)
    return ", ".join(sorted(kinds))


def _refused(status: int, where: str, method: str, path: str, **request: Any) -> Check:
    def check(session: Session) -> str:
        answer = session.http.request(method, path, **request)
        _expect(answer.status_code == status, f"status {answer.status_code} instead of {status}: {answer.text}")
        _expect(where in answer.text, f"{where} is not in {answer.text}")
        return f"{status}, names {where}"

    return check


def receipt_png() -> bytes:
    """Draw a small receipt, black on white."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (520, 60 * len(RECEIPT) + 40), "white")
    draw = ImageDraw.Draw(image)
    for line, text in enumerate(RECEIPT):
        draw.text((30, 30 + 60 * line), text, fill="black", font=ImageFont.load_default(size=32))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def photograph(name: str) -> bytes:
    """Return a photograph that comes with scikit-learn (CC BY), found without importing it."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise SmokeFailed("scikit-learn is not installed")
    return (Path(package.origin).parent / "datasets" / "images" / name).read_bytes()


def _sales(month: int) -> float:
    return 200 + 3 * month + 40 * math.sin(2 * math.pi * month / 12)


def monthly_csv() -> str:
    """Return five years of monthly sales: a trend, a season, a little noise (seeded)."""
    noise = random.Random(7)  # noqa: S311  not for secrets
    rows = [f"{2020 + m // 12}-{m % 12 + 1:02}-01,{_sales(m) + noise.gauss(0, 3):.2f}" for m in range(60)]
    return "ds,y\n" + "\n".join(rows) + "\n"


def loans_csv() -> str:
    """Return 400 loans of which income and debt decide whether they are repaid (seeded)."""
    dice = random.Random(11)  # noqa: S311  not for secrets
    rows = []
    for _ in range(400):
        income, debt = dice.randint(500, 6000), dice.randint(0, 5000)
        rows.append(f"{income},{debt},{dice.choice(['clerk', 'artist', 'nurse'])},{'yes' if income > debt else 'no'}")
    return "income,debt,job,repaid\n" + "\n".join(rows) + "\n"


@contextmanager
def _hook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    heard: list[dict[str, str]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            heard.append({"key": self.headers["idempotency-key"], "body": body})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
            """Stay quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
    finally:
        server.shutdown()
        server.server_close()


_BAD_CSV = {"file": ("bad.csv", "ds,y\n2024-01-01,1\n2024-02-01,many\n2024-03-01,3\n", "text/csv")}
_BAD_IMAGE = {"image": ("broken.png", b"\x89PNG\r\n\x1a\nnot really", "image/png")}
_WRONG_KEY = {"authorization": "Bearer nx_aaaaaaaa_" + "a" * 43 + "_aaaaaa"}

CHECKS: list[tuple[str, Check]] = [
    ("chat", _chat),
    ("chat, streamed", _stream),
    ("embeddings", _embed),
    ("ocr", _ocr),
    ("classify", _classify),
    ("detect", _detect),
    ("forecast", _forecast),
    ("train and predict", _train),
    ("workflow", _workflow),
    ("dashboard", _dashboard),
    ("ledger", _ledger),
    ("bad: key", _refused(401, "invalid", "GET", "/v1/models", headers=_WRONG_KEY)),
    ("bad: chat model", _refused(404, "model_not_found", "POST", "/v1/chat/completions", json=_ask("x", model="no"))),
    ("bad: embeddings", _refused(400, "input", "POST", "/v1/embeddings", json={"model": "minilm-l6-v2"})),
    ("bad: image for ocr", _refused(422, "image", "POST", "/api/v1/vision/ocr", files=_BAD_IMAGE)),
    ("bad: image to classify", _refused(422, "image", "POST", "/api/v1/vision/classify", files=_BAD_IMAGE)),
    ("bad: image for detect", _refused(422, "image", "POST", "/api/v1/vision/detect", files=_BAD_IMAGE)),
    ("bad: text in a series", _refused(422, "y", "POST", "/api/v1/forecasts", files=_BAD_CSV, data={"horizon": "2"})),
    ("bad: model to predict", _refused(404, "not_found", "POST", "/api/v1/models/no/predict", json={"rows": [{}]})),
    ("bad: workflow", _refused(422, "steps", "POST", "/api/v1/workflows", json={"name": "x", "steps": []})),
    ("bad: page", _refused(404, "not_found", "GET", "/api/v1/nothing-here")),
]
