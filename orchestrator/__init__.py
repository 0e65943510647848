"""The command line, the sweep, the searcher, resources and progress."""

import os
import secrets
from pathlib import Path

# Ray reads these when it is imported, so they are set before anything here can import it. Tune's
# own loggers would write each result three times; our record is the result. Whoever reaches an
# unprotected Ray may run code on it, so it always asks for a token: the user's, else one of this
# session's own, which its processes inherit and no file holds.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose boxes ignore verbose=0
# A trial without a GPU must not see the machine's.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
os.environ.setdefault("RAY_AUTH_MODE", "token")
_TOKEN_FILE = Path.home() / ".ray" / "auth_token"
if not (os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}) and not _TOKEN_FILE.exists():
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
