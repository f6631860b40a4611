"""One file a command: it parses, calls and prints; no logic, and nothing heavy at module level."""
