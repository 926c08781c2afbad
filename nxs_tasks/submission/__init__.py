"""Submission without waiting for Celery: messages written in batches, at most once each."""
