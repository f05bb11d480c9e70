"""Tells the origin of each request that came whole, as gunicorn's parser read it."""

import http.client
import os


def app(environ, start_response):
    size = 0
    while piece := environ["wsgi.input"].read(1 << 16):
        size += len(piece)
    # A body that was cut off ends like any other, unless its length was announced.
    announced = environ.get("CONTENT_LENGTH")
    if not announced or int(announced) == size:
        origin = http.client.HTTPConnection(os.environ["ORIGIN"])
        origin.request(environ["REQUEST_METHOD"], environ["RAW_URI"])
        origin.getresponse().read()
        origin.close()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"done"]
