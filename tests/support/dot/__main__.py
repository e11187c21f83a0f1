"""The provider as a process: prints its base URL, and serves until standard input closes."""

import os
import sys
from threading import Thread

import django
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application


class Handler(WSGIRequestHandler):
    # Answers to kept connections would wait for an acknowledgement otherwise, 40 ms each.
    disable_nagle_algorithm = True

    def address_string(self) -> str:
        # The client's address, without asking the resolver for its name.
        return self.client_address[0]


class Server(ThreadedWSGIServer):
    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.dot.settings"
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    server = Server(("127.0.0.1", 0), Handler)
    server.set_app(get_wsgi_application())
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
