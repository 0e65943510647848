"""What one trial does: a spec in, a record out."""

import os

# Read when torch is imported: its profiler, which counts the memory of a prediction, would report
# every start and stop, and on a machine without a GPU an error that is none.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
