"""A real OAuth2 server that is not ours: django-oauth-toolkit in a Django project of its own.

Run as `python -m tests.support.dot`, in its own process; `tests.support.dot_provider` starts and controls it.
"""
