"""One file a section of the report: what it says, computed from records."""
