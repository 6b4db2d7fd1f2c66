#!/usr/bin/env python3
"""A bundle for Parley in Python, with nothing but the standard library.

    BUNDLE_SECRET=whsec_... python3 deploy/examples/bundle.py --port 8090

`deploy/examples/README.md` says how to register it. Its operations: `count` answers in lines while it works, `later`
accepts and calls back.
"""

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1 << 20

MANIFEST = {
    "version": "1.0.0",
    "description": "Counts, in Python.",
    "operations": [
        {
            "name": name,
            "description": description,
            "role": "viewer",
            "timeout_seconds": 600,
            "concurrency": 4,
            "input": {
                "type": "object",
                "properties": {
                    "to": {"type": "integer", "minimum": 1, "maximum": 10000},
                    "delay": {"type": "number", "minimum": 0, "maximum": 60},
                },
                "required": ["to"],
                "additionalProperties": False,
            },
        }
        for name, description in [
            ("count", "Counts while the caller listens."),
            ("later", "Accepts, counts and calls back."),
        ]
    ],
}


class Secret:
    """Signs and checks messages as Standard Webhooks has it."""

    def __init__(self, text):
        self.key = base64.b64decode(text.removeprefix("whsec_"), validate=True)

    def sign(self, message_id, timestamp, body):
        signed = f"{message_id}.{timestamp}.".encode() + body
        return "v1," + base64.b64encode(hmac.digest(self.key, signed, hashlib.sha256)).decode()

    def is_ours(self, headers, body):
        message_id = headers.get("webhook-id", "")
        timestamp = headers.get("webhook-timestamp", "")
        if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
            return False
        expected = self.sign(message_id, timestamp, body)
        given = headers.get("webhook-signature", "").split(" ")
        return any(hmac.compare_digest(expected, one) for one in given)


class Jobs:
    """The jobs that were accepted, and whether somebody still wants them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.cancelled = {}

    def begin(self, job):
        with self.lock:
            return self.cancelled.setdefault(job, threading.Event())

    def cancel(self, job):
        with self.lock:
            if job in self.cancelled:
                self.cancelled[job].set()

    def end(self, job):
        with self.lock:
            self.cancelled.pop(job, None)


def count(to, delay, is_cancelled):
    """Yields the lines of an answer."""
    yield {"log": f"counting to {to}"}
    for number in range(1, to + 1):
        if is_cancelled(delay):
            return
        yield {"progress": {"done": number, "total": to, "unit": "numbers", "message": "counting"}}
    yield {"result": {"counted": to}}


def call_back(secret, run, line):
    """Sends a line until Parley has it. Says whether Parley wants more."""
    body = json.dumps({"fence": run["fence"], **line}).encode()
    message_id = str(uuid.uuid4())
    for attempt in range(10):
        timestamp = str(int(time.time()))
        request = urllib.request.Request(
            run["callback_url"],
            data=body,
            headers={
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": timestamp,
                "webhook-signature": secret.sign(message_id, timestamp, body),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10):
                return True
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                return False
        except OSError:
            pass
        time.sleep(min(0.2 * 2**attempt, 5))
    return False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A request that does not come is given up.
    timeout = 30

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return self.answer(413)
        body = self.rfile.read(int(length))
        if not self.server.secret.is_ours(self.headers, body):
            return self.answer(401)
        message = json.loads(body)
        if message["type"] == "cancel":
            self.say("cancelled", message["job"])
            self.server.jobs.cancel(message["job"])
            return self.answer(204)
        self.say("called", message["job"], message["operation"], str(message["attempt"]))
        data = message["input"]
        work = {"to": data["to"], "delay": data.get("delay", 0)}
        if message["operation"] == "count":
            self.count(message, work)
        elif message["operation"] == "later":
            cancelled = self.server.jobs.begin(message["job"])
            arguments = (self.server, message, work, cancelled)
            threading.Thread(target=later, args=arguments, daemon=True).start()
            self.answer(202)
        else:
            self.answer(404)

    def count(self, message, work):
        """Answers in lines. Whoever does not want them any more closes the connection."""

        def wait(seconds):
            time.sleep(seconds)
            return False

        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for line in count(work["to"], work["delay"], wait):
                self.wfile.write(json.dumps(line).encode() + b"\n")
            self.say("finished", message["job"])
        except OSError:
            self.say("hung-up", message["job"])
        self.close_connection = True

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def say(self, *words):
        print(*words, flush=True)

    def log_message(self, *_):
        pass


def later(server, run, work, cancelled):
    line, is_wanted = {}, True
    for line in count(work["to"], work["delay"], cancelled.wait):
        is_wanted = call_back(server.secret, run, line)
        if not is_wanted:
            break
    print("finished" if is_wanted and "result" in line else "given-up", run["job"], flush=True)
    server.jobs.end(run["job"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--manifest", action="store_true", help="print the manifest and end")
    options = parser.parse_args()
    if options.manifest:
        print(json.dumps(MANIFEST, indent=2))
        return
    try:
        secret = Secret(os.environ["BUNDLE_SECRET"])
    except (KeyError, binascii.Error):
        sys.exit("set BUNDLE_SECRET to `whsec_` and 24 to 64 random bytes in base64")
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.daemon_threads = True
    server.secret = secret
    server.jobs = Jobs()
    print(f"http://{options.host}:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
