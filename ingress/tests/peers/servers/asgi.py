"""Tells the origin of each request that came whole, as uvicorn's parser (h11) read it."""

import http.client
import os


async def app(scope, receive, send):
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        more = message.get("more_body", False)
    target = scope["raw_path"].decode()
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode()
    origin = http.client.HTTPConnection(os.environ["ORIGIN"])
    origin.request(scope["method"], target)
    origin.getresponse().read()
    origin.close()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"done"})
