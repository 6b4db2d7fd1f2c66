"""Reads an archive with slack-export-viewer, and prints what it found in each channel: messages, authors without a name, the
users and texts of each thread's messages."""

import json
import sys
from types import SimpleNamespace

from slackviewer.reader import Reader

config = SimpleNamespace(
    archive=sys.argv[1],
    since=None,
    hide_channels=[],
    filter_user=None,
    skip_channel_member_change=False,
    thread_note=False,
)
reader = Reader(config)
found = {}
for channel, messages in reader.compile_channels().items():
    threads, root = [], None
    for message in messages:
        if not message.is_thread_msg:
            root = message
        elif threads and threads[-1]["root"] == root._message["ts"]:
            threads[-1]["replies"].append(message._message["text"])
        else:
            threads.append({"root": root._message["ts"], "text": root._message["text"], "replies": [message._message["text"]]})
    names = sorted({message.username for message in messages})
    found[channel] = {"messages": len(messages), "threads": threads, "names": names}
json.dump(found, open(sys.argv[2], "w"))
