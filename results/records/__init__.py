"""Runs and records as they are read back: values, notes, the table of trials, files."""
