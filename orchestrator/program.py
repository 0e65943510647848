"""The command line as a program: what it is called, its exit codes, and a line for every error."""

import errno
import logging
import sys
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli import app
from trainables.errors import InputError, StorageError, TrainingDivergedError, TrialFailedError

SCRIPT = "defense-sweep"
"""The same as `python -m orchestrator`, as an installed command."""
_COMPLETION = ("--install-completion", "--show-completion")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a full disk answers."""


def main() -> int:
    """Run the command line: 0 done, 1 failed, 2 wrong usage or input, 3 nothing fits."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from results import ResultsError

    try:
        code = typer.main.get_command(app).main(prog_name=_program(), standalone_mode=False)
    except (InputError, ResultsError) as error:
        return _told(str(error), 2)
    except OSError as error:
        if not isinstance(error, StorageError) and error.errno not in _NO_ROOM:
            raise
        return _told(f"{error}; run the same command again", 1)
    except (TrainingDivergedError, TrialFailedError) as error:
        return _told(str(error), 1)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 1
    except Exception as error:
        # Typer's own complaints have a message of one line; anything else is a fault of ours.
        if not hasattr(error, "format_message"):
            raise
        return _told(_complaint(error), 2)
    return int(code or 0)


def _program() -> str:
    """Return the name that this was called by; a shell completes a command of one word alone."""
    completion = any(word.startswith(_COMPLETION) for word in sys.argv[1:])
    return SCRIPT if completion or Path(sys.argv[0]).name == SCRIPT else "python -m orchestrator"


def _complaint(error: Any) -> str:
    """Return what Typer says is wrong, and of what is missing also what it is."""
    message = str(error.format_message())
    if not message:  # the help was printed instead
        return "no command is given; the help above lists them"
    wanted = getattr(getattr(error, "param", None), "help", None)
    return (
        f"{message.rstrip('.')}: {wanted}" if wanted and message.startswith("Missing") else message
    )


def _told(message: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
