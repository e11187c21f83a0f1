"""The WSGI application. Refuses to come up on settings that are unsafe in production."""

import os
import signal

# Until it has loaded this module a granian worker has the handlers of the process that forked it, and in the worker they do
# nothing: a stop in that second would have to wait until the worker is killed. So this comes before Django's import.
for number in (signal.SIGINT, signal.SIGTERM):
    if getattr(signal.getsignal(number), "__module__", "") == "granian.server.common":
        signal.signal(number, signal.SIG_DFL)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "knoxcall.settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402

from knoxcall.charsets import in_utf8  # noqa: E402

application = in_utf8(get_wsgi_application())

from knoxcall.checks import refuse_unsafe_settings  # noqa: E402  needs the app registry

refuse_unsafe_settings()

from django.conf import settings  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

import_string(settings.KNOXCALL_WEB_STARTS)()
