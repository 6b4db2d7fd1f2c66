"""Follows a URL with `httpx-sse`, as docs/clients.md says: one line of JSON for each event, each error, and the end."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

url, token = sys.argv[1:3]
# Where to stop: what is refused for good.
FINAL = {204, 400, 401, 403, 404, 422}


def show(**line):
    print(json.dumps(line), flush=True)


last, wait = None, 1.0
with httpx.Client(timeout=httpx.Timeout(10, read=45), trust_env=False) as client:
    while True:
        headers = {"Authorization": f"Bearer {token}"}
        if last:
            headers["Last-Event-ID"] = last
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                status = source.response.status_code
                if status in FINAL:
                    show(name="stopped", code=status)
                    sys.exit(0)
                source.response.raise_for_status()
                show(name="open")
                for event in source.iter_sse():
                    show(name=event.event, id=event.id, data=event.data)
                    last = event.id or last
                    if event.retry is not None:
                        wait = event.retry / 1000
        except httpx.HTTPError as error:
            show(name="error", code=getattr(getattr(error, "response", None), "status_code", None))
        time.sleep(wait)
