"""The command line, the sweep, the searcher, resources and progress."""

import os
import secrets
import sys
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
TOKEN_FILE = Path.home() / ".ray" / "auth_token"
OWN_TOKEN = not TOKEN_FILE.exists() and not (
    os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
)
if OWN_TOKEN:
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
if "ray" in sys.modules:  # imported before us: it has read its settings, and reads them again
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")
