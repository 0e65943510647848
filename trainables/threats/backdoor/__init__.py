"""Backdoors: poisoned training rows, triggers, and what they do to a twin."""
