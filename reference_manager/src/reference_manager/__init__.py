"""The Jobnik manager: it keeps all state and hands out tasks."""
