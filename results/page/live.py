"""The report of a run that goes on, by a process of its own that its driver starts and ends."""

import signal
import sys

from results.page.report import write_report


def main() -> None:
    """Write the report of the run whose folder or URI is on standard input.

    Not the command line: a URI may hold what no list of processes may show.
    """
    # Ended by the driver when the sweep ends: as an exception, so that no half of a file stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    write_report(sys.stdin.readline().rstrip("\n"), running=True)
