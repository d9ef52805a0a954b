"""Is the service on this host ready? `python -m servicekit.probe` exits 0 if so: for container health checks.

The port is the only `*_PORT` setting in the environment. Standard library only, so that it starts quickly.
"""

import http.client
import os
import sys

TIMEOUT_S = 2.5


def main() -> int:
    """0 if `/readyz` answers 200, else 1."""
    ports = [value for name, value in os.environ.items() if name.endswith("_PORT") and value.isdigit()]
    if len(ports) != 1:
        print("set exactly one *_PORT", file=sys.stderr)
        return 1
    connection = http.client.HTTPConnection("127.0.0.1", int(ports[0]), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
