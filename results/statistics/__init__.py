"""Differences, intervals and fronts of what was measured."""
