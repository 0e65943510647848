"""Fixtures of the tests on Ray."""

from tests.pretend_gpu.conftest import pretend_environment

__all__ = ["pretend_environment"]
