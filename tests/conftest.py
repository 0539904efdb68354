import os
from collections.abc import Generator

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]


class BySuite(LoadScopeScheduling):  # type: ignore[misc]
    """Two suites may run at once, but the tests of one follow each other in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> BySuite:
    return BySuite(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped has failed: there, everything has to be at hand."""
    report = yield
    expected = hasattr(report, "wasxfail")
    if report.skipped and not expected and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report
