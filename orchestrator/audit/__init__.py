"""What an audit runs: its candidates, its plan and its specs."""
