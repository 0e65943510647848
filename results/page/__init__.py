"""The report: its page, figures, tables and JSON, and the templates they are made from."""
