"""The answering side, `python -m app.generator.child ROOT INDEX`: requests from stdin, answers to stdout, in order.

Whatever is not a `UsageError` ends the process, its traceback on stderr: the asking side tells who waits, and starts
another.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from app.generator import plain, plain_search
from app.workbench import Workbench
from store.errors import UsageError

OUT_OF_MEMORY = (
    "the model has run out of memory: shorten the text, ask for fewer samples, or end what else takes memory"
)
Send = Callable[[dict[str, Any]], None]


def main() -> None:
    """Answer until the asking side closes stdin, which it does by ending, too."""
    # Ctrl-C goes to the whole terminal: the asking side decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _own_pipes()
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    cancelled: set[int] = set()
    threading.Thread(target=_read, args=(requests, waiting, cancelled), daemon=True).start()
    root, index = sys.argv[1:]
    _quiet()

    def send(message: dict[str, Any]) -> None:
        answers.write(plain.line(message))
        answers.flush()

    answer(cache(lambda: Workbench.open(Path(root), index)), iter(waiting.get, None), cancelled, send)


def answer(bench: Callable[[], Workbench], requests: Iterable[dict[str, Any]], cancelled: set[int], send: Send) -> None:
    """Answer requests in their order.

    Args:
        bench: gives the workbench; asked for every request, so that one that cannot be opened is tried again.
        requests: with `job`, `do`, and the arguments of that.
        cancelled: jobs to be dropped, which grows while they run.
        send: where answers go.
    """
    for request in requests:
        number = request.pop("job")
        if number not in cancelled:
            # Closed here and not whenever it is collected: nothing of one job is there in the next.
            with closing(_messages(bench, **request)) as messages:
                for message in messages:
                    send({"job": number, **message})
                    if number in cancelled:
                        break
        if number in cancelled:
            # Whoever cancelled it knows by this that we are there.
            send({"job": number, "kind": "dropped"})
        cancelled.discard(number)


def _messages(bench: Callable[[], Workbench], *, do: str, **asked: Any) -> Generator[dict[str, Any]]:
    yield {"kind": "started"}
    try:
        yield from ANSWERS[do](bench(), **asked)
    except UsageError as error:
        yield {"kind": "refused", "line": str(error)}
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        yield {"kind": "refused", "line": OUT_OF_MEMORY}


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is the device's or the machine's memory; of the device's, what is free is given back."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return True
    # As torch says it of memory that is not a device's.
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _steer(bench: Workbench, *, edits: list[dict[str, Any]], **asked: Any) -> Generator[dict[str, Any]]:
    from app.steered import Steering

    for step in bench.steps(edits=plain.edits(edits), **asked):
        if isinstance(step, Steering):
            yield {"kind": "result", "result": plain.plain_steering(step)}
        else:
            yield {"kind": "token", "side": step.side, "text": step.text}


def _sweep(bench: Workbench, *, cfg: dict[str, Any]) -> Generator[dict[str, Any]]:
    from autointerp.sweep import Measured

    for step in bench.sweep_steps(plain.sweep_config(cfg)):
        if isinstance(step, Measured):
            yield {"kind": "progress", "done": step.n_done, "of": step.n_cells}
        else:
            yield {"kind": "result", "result": {"run": step.id}}


def _inspect(bench: Workbench, *, text: str, chat: bool, losses: bool) -> Generator[dict[str, Any]]:
    yield {"kind": "result", "result": plain.plain_inspection(bench.inspect(text, chat=chat, losses=losses))}


def _search(bench: Workbench, **asked: Any) -> Generator[dict[str, Any]]:
    yield {"kind": "result", "result": plain_search.plain_found(bench.search(**asked))}


def _directions(bench: Workbench, *, latent: int) -> Generator[dict[str, Any]]:
    from autointerp.index.neighbours import directions_of
    from sae import checkpoint

    # The checkpoint alone: it is there where the model may not be.
    sides = directions_of(checkpoint.load(bench.sae_run.folder))
    found = {side: rows[latent].float().tolist() for side, rows in sides.items()}
    yield {"kind": "result", "result": {"directions": found}}


def _effects(bench: Workbench, **asked: Any) -> Generator[dict[str, Any]]:
    from app.generator.plain_prompt import answer_effects

    return answer_effects(bench, **asked)


def _contrast(bench: Workbench, **asked: Any) -> Generator[dict[str, Any]]:
    from app.generator.plain_prompt import answer_contrast

    return answer_contrast(bench, **asked)


ANSWERS: dict[str, Callable[..., Any]] = {
    "contrast": _contrast,
    "directions": _directions,
    "effects": _effects,
    "inspect": _inspect,
    "search": _search,
    "steer": _steer,
    "sweep": _sweep,
}
"""What may be asked: generators of messages, the last of them the result."""


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout for ourselves: whatever a library reads is nothing, and what it prints goes to stderr."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, answers


def _read(requests: BinaryIO, waiting: "queue.SimpleQueue[dict[str, Any]]", cancelled: set[int]) -> None:
    for said in requests:
        if not said.endswith(b"\n"):
            break
        request = json.loads(said)
        if request["do"] == "cancel":
            cancelled.add(request["job"])
        else:
            waiting.put(request)
    # Nobody is there to answer, whatever is being computed: nothing is left on disk that would have to be put in order.
    os._exit(0)


def _quiet() -> None:
    from app.log import quiet_libraries

    quiet_libraries()


if __name__ == "__main__":
    main()
