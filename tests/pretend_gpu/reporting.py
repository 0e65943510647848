"""A plugin for the process with the device: writes pytest's reports where its parent reads them."""

import json
import os
from pathlib import Path

import pytest

from tests.pretend_gpu.running import REPORTS_VARIABLE


class Writer:
    """Appends each report, as soon as it is made, to the file."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a report."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a") as file:
            file.write(json.dumps(data) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Start to write reports."""
    config.pluginmanager.register(Writer(config, Path(os.environ[REPORTS_VARIABLE])))
