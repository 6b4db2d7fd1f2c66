"""Prints a stream as it comes, decompressed by zlib, which has to find its end right."""

import http.client
import sys
import urllib.parse
import zlib

url, token = sys.argv[1:]
parts = urllib.parse.urlsplit(url)
connection = http.client.HTTPConnection(parts.netloc)
headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "gzip"}
connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
response = connection.getresponse()
assert response.headers["Content-Encoding"] == "gzip"
decompressor = zlib.decompressobj(31)
while part := response.read1():
    sys.stdout.buffer.write(decompressor.decompress(part))
    sys.stdout.flush()
assert decompressor.eof and not decompressor.unused_data and not decompressor.unconsumed_tail
