"""Applications that use NXS the way a stranger's would: stock Celery and one line."""
