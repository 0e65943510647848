"""The sweep on Ray: its trials, their share of the machine, retries and progress."""
