"""The click commands: parse, call a stage, print."""
