"""Benchmark the schedules by which mini-batch SGD sets its batch size."""
