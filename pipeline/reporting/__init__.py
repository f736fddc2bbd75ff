"""The parts of the report: what it tells, its figures, its pictures and its page."""
