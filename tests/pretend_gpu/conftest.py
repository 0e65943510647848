"""Sends the tests that are marked `pretend_gpu` to a process of their own, one for each file."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.pretend_gpu.building import NoCompilerError
from tests.pretend_gpu.environment import device_environment
from tests.pretend_gpu.install import installed
from tests.pretend_gpu.running import Reports, run_tests, skipped

_MARK = "pretend_gpu"
REPORTS = pytest.StashKey[dict[Path, Reports]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Report a marked test as its process did; the first one of a file runs all of them."""
    if installed() or item.get_closest_marker(_MARK) is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports_of(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What the test before left set up for this one, the fixtures of their file say, ends here: the
    # next test may lie in another file, and pytest's own protocol, which ends them, does not run.
    item.session._setupstate.teardown_exact(nextitem)
    return True


@pytest.fixture(scope="session")
def pretend_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a process that has the device; skips without a compiler."""
    try:
        return device_environment(tmp_path_factory.mktemp("pretend-path"))
    except NoCompilerError as error:
        pytest.skip(str(error))


def reports_of(item: pytest.Item) -> list[pytest.TestReport]:
    """Return a marked test's reports, from its process or from before."""
    known = item.config.stash.setdefault(REPORTS, {})
    if item.path not in known:
        try:
            known[item.path] = _run_file_of(item)
        except NoCompilerError as error:
            return [skipped(item, str(error))]
    return list(known[item.path][item.nodeid])


def _run_file_of(item: pytest.Item) -> Reports:
    """Run those tests of an item's file that this session has collected."""
    mates = [other for other in item.session.items if other.path == item.path]
    marked = [mate.nodeid for mate in mates if mate.get_closest_marker(_MARK) is not None]
    with TemporaryDirectory(prefix="pretend-gpu-") as folder:
        environment, root = device_environment(Path(folder) / "path"), item.config.rootpath
        return run_tests(marked, item.config, environment, Path(folder), root)
