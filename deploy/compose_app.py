"""The app of compose.yaml: it counts visits, and knows of sessions only the headers X-Session and X-Session-Update."""

import json
from wsgiref.simple_server import make_server


def app(environ, start_response):
    visits = json.loads(environ.get("HTTP_X_SESSION", "{}")).get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Session-Update", json.dumps({"visits": visits}))])
    return [f"visit {visits}\n".encode()]


make_server("127.0.0.1", 3000, app).serve_forever()
