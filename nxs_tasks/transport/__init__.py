"""kombu's Redis transport with what a fleet needs: no message is nowhere, none is written twice.

Key layout and message format stay kombu's own, so stock producers and workers interoperate.
"""
