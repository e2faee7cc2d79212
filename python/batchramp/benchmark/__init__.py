"""Suites of trials, their results, and what the results say."""
