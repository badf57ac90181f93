"""Stands in for the real server where tests watch what the launcher tells one."""
