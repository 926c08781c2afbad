"""NXS turns a handful of Celery workers into a fleet that places, watches and explains itself.

```python
app = Celery("shop", broker="redis://...", backend="redis://...")
fleet = Fleet(app)
```
"""
