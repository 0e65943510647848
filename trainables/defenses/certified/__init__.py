"""Defenses that prove, with stated confidence, that no small change moves an answer."""
