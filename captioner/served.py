"""Captions from a server with an OpenAI-like chat API (vLLM, SGLang, llama.cpp, a vendor).

In: filmstrips; URL#MODEL, for example `http://localhost:8000/v1#Qwen/Qwen3-VL-8B-Instruct`; the key, if the
server wants one, from OPENAI_API_KEY. Out: captions, one request per style and clip, several at a time.
A request that the server refuses costs its clip; a wrong address or model stops the run; a server that is
down, busy or does not accept the key is the environment's fault, which costs no clip.
"""

import base64
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from captioner.caption import DETAILED_PROMPT, SHORT_PROMPT, Caption, folder_name
from captioner.filmstrip import Filmstrip
from pipeline.engine.stage import Failure, Resources, guard
from pipeline.errors import MediaError, ModelError, StorageError

TIMEOUT_S = 120.0
TRIES = 4
PARALLEL_REQUESTS = 8
REFUSED = {401, 403}  # also of a key that expires during a run
WORTH_RETRYING = {408, 429, 500, 502, 503, 504}


class ServedCaptioner:
    """One model on one server. Its weights are not known here: the name stands for them."""

    def __init__(self, address: str, max_tokens: int, *, retry_s: float = 1.0) -> None:
        url, _, model = address.partition("#")
        if not url.startswith(("http://", "https://")) or not model:
            raise ModelError(f"openai:{address}", expected="openai:URL#MODEL with an http or https URL")
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model, self._max_tokens, self._retry_s = model, max_tokens, retry_s
        self.name = f"openai:{address}"
        self.dir_name = folder_name("openai", address)
        self.weights_sha256 = hashlib.sha256(
            f"{address} {SHORT_PROMPT} {DETAILED_PROMPT}".encode()
        ).hexdigest()
        self.resources = Resources(cpus=1, memory_gb=1)

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return list(pool.map(lambda strip: guard(lambda: self._caption_one(strip)), strips))

    def _caption_one(self, strip: Filmstrip) -> Caption:
        short, detailed = (self._ask(prompt, strip) for prompt in (SHORT_PROMPT, DETAILED_PROMPT))
        return Caption(short=short, detailed=detailed)

    def _ask(self, prompt: str, strip: Filmstrip) -> str:
        images = [
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(frame).decode()}"},
            }
            for frame in strip.frames
        ]
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": [*images, {"type": "text", "text": prompt}]}],
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "seed": 0,
        }
        answer = self._post(body, strip.clip_id)
        try:
            text = answer["choices"][0]["message"]["content"]
            return " ".join(text.split())
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise MediaError(f"clip {strip.clip_id}: the server's answer holds no caption") from error

    def _post(self, body: dict[str, Any], clip_id: str) -> Any:
        """The server's JSON. Tries again when it is busy or does not answer.

        Raises:
            MediaError: the server refuses this one request.
            StorageError: it is down, stays busy, does not end its answers, or does not accept the key.
            ModelError: nothing of that name is there.
        """
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(self._retry_s * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}: {error.read(300).decode(errors='replace')}"
                said = f"{self._url} answers {problem}"
                if error.code == 404:
                    raise ModelError(said, fix="check the URL and the model") from error
                if error.code in REFUSED:
                    raise StorageError(said, fix="check the key in OPENAI_API_KEY") from error
                if error.code not in WORTH_RETRYING and error.code < 500:
                    raise MediaError(f"clip {clip_id}: {self._url} gave no caption: {problem}") from error
            except urllib.error.URLError as error:
                problem = f"{error.reason}"
                if isinstance(error.reason, ConnectionRefusedError):
                    break
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise StorageError(
            f"{self._url} gave no caption: {problem}", fix="start the server and run the command again"
        )
