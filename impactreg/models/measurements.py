"""What was measured of a model file, kept beside the models: the same question is answered once, not in every run.

Fields of view, strides and what else a model's own gradients or run times tell depend on the file, on PyTorch, and on
the shape of what the model is shown. They are kept in `cache_folder()/measurements`, one small JSON file for each
model file (by its SHA-256), PyTorch and device, and computer, since one of the questions is what is faster there.
"""

import json
import logging
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from impactreg.errors import ModelError, OutputError
from impactreg.images.whole import write_whole
from impactreg.models.extractor import Extractor
from impactreg.models.lock import digest, exclusive

VERSION = 1
"""Counts up when a way of measuring changes, so that older answers are left alone."""
LARGEST = 1 << 20
"""Bytes of a file above which it is no file of ours."""

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


def recall(extractor: Extractor, question: str, measure: Callable[[], Answer], read: Callable[[Any], Answer]) -> Answer:
    """What `measure` says, or said when it was asked before; `question` names everything that the answer depends on but
    the model.

    Answers are tuples, numbers, texts, booleans or None; `read` makes one of what JSON keeps of it (lists for tuples).
    A file that is damaged is made anew; where nothing can be written, and for a model that is no file, it is measured
    in every process. Mixed precision does not reach into what is measured.
    """
    file = _file(extractor)
    known = {} if file is None else _answers(file)
    if question in known:
        try:
            return read(known[question])
        except (TypeError, ValueError, KeyError, IndexError):
            log.info("%s: the answer to %r is damaged and measured anew", file, question)
    with torch.autocast(extractor.device.type, enabled=False):
        answer = measure()
    if file is not None:
        _keep(file, question, answer)
    return answer


def _file(extractor: Extractor) -> Path | None:
    """Where the answers for a model are kept."""
    # The catalogue makes models, which measures them: its door is not open yet when this module is imported.
    from impactreg.models.catalogue import cache_folder

    if extractor.path is None:
        return None
    try:
        model = digest(extractor.path)
    except ModelError:
        return None
    where = "".join(c if c.isalnum() else "_" for c in f"{extractor.device.type}-{platform.node()}")
    return cache_folder() / "measurements" / f"{model[:32]}-v{VERSION}-torch{torch.__version__}-{where}.json"


def _answers(file: Path) -> dict[str, Any]:
    """The answers in a file; none where there is no such file or it is damaged."""
    try:
        with file.open(encoding="utf-8") as stream:
            found = json.loads(stream.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(file: Path, question: str, answer: object) -> None:
    """Adds an answer; another process that writes at the same time loses none of its own."""
    try:
        with exclusive(file.with_suffix(".lock")):
            write_whole(file, json.dumps({**_answers(file), question: answer}, indent=1, sort_keys=True))
    except OutputError as error:
        log.info("%s; it is measured again in each process", error)
