"""What a job in the background is: `python -m app.job_process FOLDER` runs the command that the folder names.

It says itself which process it is and how it ended, so that nobody need have watched. Killed, it says nothing, and is
known by that.
"""

import os
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from store.files import read_json, write_json
from store.processes import began

ASKED, PROCESS, ENDED = "job.json", "process.json", "ended.json"
CRASHED = 1
"""Status after an error that is not the person's."""


def main(folder: Path) -> int:
    """Run the command of `folder`; its status, as `app.cli.main` has it."""
    # A server that was itself started in the background hands on that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    write_json(folder / PROCESS, {"pid": os.getpid(), "began": began(os.getpid())})
    status = CRASHED
    try:
        status = _run(list(read_json(folder / ASKED)["argv"]))
    finally:
        sys.stdout.flush()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / ENDED, {"status": status, "ended_at": at})
    return status


def _run(argv: list[str]) -> int:
    try:
        from app.cli import main as run_command

        return run_command(argv)
    except SystemExit as error:  # tyro, of arguments that it does not take
        return error.code if isinstance(error.code, int) else CRASHED
    except KeyboardInterrupt:
        return 130  # before the command had begun
    except Exception:
        traceback.print_exc()
        return CRASHED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
