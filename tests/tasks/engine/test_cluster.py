"""Faults of engines: the cause is found behind what wraps it."""

from pathlib import Path

import pytest

from tasks.engine import cluster

SAID = (
    "\x1b[36mray::VLLMEngine.start()\x1b[39m (pid=77, ip=127.0.0.1)\n"
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)
PRINTED = """\
INFO loading
ValueError: an earlier fault
Traceback (most recent call last):
  File "weight_utils.py", line 1163, in safetensors_weights_iterator
safetensors._safetensors_rust.SafetensorError: Error while deserializing header: file not whole
nanobind: leaked 3 types!
"""


@pytest.mark.parametrize(
    ("said", "process", "cause"),
    [
        (SAID, 77, "safetensors._safetensors_rust.SafetensorError: Error while deserializing"),
        (SAID, 78, None),
        ("(pid=77)\nValueError: max_model_len is too large", 77, None),
    ],
    ids=["printed", "on another node", "said"],
)
def test_cause_that_an_engine_only_printed_is_found(
    said: str, process: int, cause: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "logs_of_engines", lambda: str(tmp_path))
    (tmp_path / f"worker-abc-ffffffff-{process}.err").write_text(PRINTED)
    found = cluster.printed_cause(RuntimeError(said))
    assert found is cause is None or (found and cause and found.startswith(cause))
