"""Captioners by name: the answers come in order, one bad clip costs itself only, errors say what to do."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.caption import Caption
from captioner.filmstrip import Filmstrip
from captioner.names import load_captioner
from captioner.pretrained import greedy
from captioner.served import ServedCaptioner
from captioner.training.examples import toy_example
from pipeline.engine.stage import Failure
from pipeline.errors import ModelError, StorageError
from pipeline.media.stills import encode_jpeg


def strip(clip_id: str = "c", *, source_id: str = "s", span: tuple[float, float] = (0.0, 1.0)) -> Filmstrip:
    grey = encode_jpeg(np.full((24, 40, 3), 90, np.uint8), 92)
    return Filmstrip(
        clip_id=clip_id,
        source_id=source_id,
        kind="video",
        start_s=span[0],
        end_s=span[1],
        times_s=(0.0, 0.5),
        frames=(grey, grey),
    )


def broken(clip_id: str) -> Filmstrip:
    sound = strip(clip_id)
    return Filmstrip(
        clip_id=clip_id,
        source_id="s",
        kind="video",
        start_s=0.0,
        end_s=1.0,
        times_s=sound.times_s,
        frames=(b"not a jpeg", sound.frames[0]),
    )


# -- builtin ----------------------------------------------------------------------------------------


def test_builtin_answers_in_order_and_a_broken_strip_costs_itself_only() -> None:
    captioner = load_captioner("builtin:", max_tokens=40)
    strips = [toy_example(5, 0).strip, broken("bad"), toy_example(5, 1, 1).strip, toy_example(5, 2).strip]
    answers = captioner.caption(strips)
    assert isinstance(answers[1], Failure)
    assert "bad" in answers[1].reason
    for index in (0, 2, 3):
        together = answers[index]
        assert isinstance(together, Caption)
        assert captioner.caption([strips[index]]) == [together]  # to the last bit, whoever was beside it
        assert together.confidence is not None
        assert together.confidence < 0
        assert together.alignment is not None
        assert -1 <= together.alignment <= 1
    assert captioner.dir_name == "builtin"
    assert len(captioner.weights_sha256) == 64


def test_no_strips_no_answers() -> None:
    assert load_captioner("builtin:").caption([]) == []


# -- truth ------------------------------------------------------------------------------------------


@pytest.fixture
def truth(tmp_path: Path) -> str:
    def shot(start_s: float, end_s: float, word: str) -> dict[str, Any]:
        return {"start_s": start_s, "end_s": end_s, "short": f"{word}.", "detailed": f"{word} {word}."}

    rows = [{"source_id": "s", "shots": [shot(0, 2, "one"), shot(2, 4, "two")]}]
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"truth:{tmp_path / 'truth.jsonl'}"


def test_truth_finds_the_shot_that_a_clip_overlaps_most(truth: str) -> None:
    first, second, outside, unknown = load_captioner(truth).caption(
        [
            strip(span=(0.1, 2.2)),
            strip(span=(1.9, 4.0)),
            strip(span=(3.5, 9.0)),
            strip(source_id="other"),
        ]
    )
    assert isinstance(first, Caption)
    assert isinstance(second, Caption)
    assert (first.short, second.detailed) == ("one.", "two two.")
    assert isinstance(outside, Failure)
    assert isinstance(unknown, Failure)


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt", "openai:URL#MODEL"),
        ("truth:", "truth:FILE"),
        ("openai:localhost", "http"),
        ("openai:http://localhost:1/v1", "MODEL"),
        ("coca:ViT-B-32/openai", "coca:MODEL/TAG"),
        ("builtin:/nowhere", "captioner train"),
        ("truth:/nowhere/truth.jsonl", "framemill toyworld"),
    ],
)
def test_a_wrong_name_says_what_is_right(name: str, expected: str) -> None:
    with pytest.raises(Exception, match=expected) as raised:
        load_captioner(name)
    assert type(raised.value).__module__ == "pipeline.errors"


# -- coca -------------------------------------------------------------------------------------------


def test_greedy_reads_a_foreign_coca_word_by_word() -> None:
    class Counting:
        """Predicts the last id plus one, and the end (9) after 7."""

        def __call__(self, _: None, ids: torch.Tensor, **__: Any) -> dict[str, torch.Tensor]:
            following = (ids + 1).where(ids < 7, torch.tensor(9))
            return {"logits": 50.0 * torch.nn.functional.one_hot(following, 10).float()}

    latent = torch.zeros(2, 4)
    words, log_probability = greedy(Counting(), latent, latent, start=3, end=9, limit=20)
    assert words == [[4, 5, 6, 7]] * 2
    assert log_probability == pytest.approx(0.0, abs=1e-3)


# -- openai -----------------------------------------------------------------------------------------


class Server:
    """A chat API that answers from a list of (status, body); keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.requests: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append({"path": self.path, "headers": dict(self.headers), **body})
                status, text = outer.answers.pop(0)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def said(text: str) -> tuple[int, str]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]})


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def ask(server: Server) -> Caption | Failure:
    return ServedCaptioner(f"{server.url}#m/1", 50, retry_s=0.01).caption([strip()])[0]


def test_a_server_gets_the_frames_and_both_prompts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    server.answers = [said(" A dog\nruns. "), said("A brown dog runs over grass.")]
    assert ask(server) == Caption(short="A dog runs.", detailed="A brown dog runs over grass.")
    first = server.requests[0]
    assert first["path"] == "/v1/chat/completions"
    assert first["headers"]["Authorization"] == "Bearer k"
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m/1", 0, 50)
    kinds = [part["type"] for part in first["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    assert first["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.answers = [(429, ""), (503, ""), said("a"), said("b")]
    assert ask(server) == Caption(short="a", detailed="b")


@pytest.mark.parametrize("answer", [(400, "too many images"), (200, "{}"), (200, '{"choices": []}')])
def test_a_refused_request_costs_the_clip(server: Server, answer: tuple[int, str]) -> None:
    server.answers = [answer]
    assert isinstance(ask(server), Failure)
    assert len(server.requests) == 1


def test_a_server_that_stays_busy_or_refuses_the_key_costs_no_clip(server: Server) -> None:
    for answers, text in (([(500, "overloaded")] * 4, "overloaded"), ([(401, "no")], "OPENAI_API_KEY")):
        server.answers = answers
        with pytest.raises(StorageError, match=text):
            ask(server)


def test_a_wrong_model_stops_the_run(server: Server) -> None:
    server.answers = [(404, "no")]
    with pytest.raises(ModelError, match="check"):
        ask(server)


def test_no_server_costs_no_clip(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(StorageError, match="start the server"):
        ask(server)


def test_folder_names_are_safe_and_differ() -> None:
    names = [ServedCaptioner(f"http://h:1/v1#{model}", 5).dir_name for model in ("A/b", "A-b")]
    assert names[0] != names[1]
    assert all(name.replace("-", "").isalnum() for name in names)
