"""Joins, listens on the inherited socket, answers /health/ready, and writes down all it hears.

Environment: FAKE_SERVER_LOG (file of JSON lines), FAKE_SERVER_DRAIN_S (how long it drains),
FAKE_SERVER_FAILS (its exit status, at once), FAKE_SERVER_DEAF (ignores Shutdown),
FAKE_SERVER_CANNOT_USE_IT (why no worker is good enough).
"""

import json
import logging
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
from backplane_core.control import (
    Join,
    ServerLaunch,
    ServerUp,
    Shutdown,
    ToChild,
    WorkerDown,
    WorkerUp,
)
from backplane_core.process import configure_logging, die_with_parent
from backplane_core.testing.blocking_channel import BlockingChannel
from backplane_core.version import PROTOCOL

state = {"up": {}, "down": {}}
launch = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ServerLaunch)


def note(**fields):
    with Path(os.environ["FAKE_SERVER_LOG"]).open("a") as file:
        file.write(json.dumps({"server": launch.server_id, "pid": os.getpid(), **fields}) + "\n")


def there(path):
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(path) == 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        failed = os.environ.get("FAKE_SERVER_CANNOT_USE_IT")
        stage = {"stage": "failed", "error": failed} if failed else {}
        body = json.dumps(state | stage).encode()
        self.send_response(200 if state["up"] and not failed else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    die_with_parent()
    if os.environ.get("FAKE_SERVER_FAILS"):
        status = int(os.environ["FAKE_SERVER_FAILS"])
        configure_logging("info", as_json=launch.log_json, label=launch.server_id)
        logging.getLogger("backplane_server").error("no template: here (write one)")
        sys.exit(status)
    note(
        event="launch",
        document=msgspec.to_builtins(launch),
        secrets=[name for name in ("API_KEY", "HF_TOKEN") if name in os.environ],
        argv=sys.argv,
        mode=oct(Path(sys.argv[1]).stat().st_mode & 0o777),
    )
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(launch.control_path)
    channel = BlockingChannel(sock, ToChild)
    channel.send(
        Join(role="server", member_id=launch.server_id, pid=os.getpid(), protocol=PROTOCOL)
    )
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    http.socket.close()
    http.socket = socket.socket(fileno=launch.listen_fd)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    channel.send(ServerUp(server_id=launch.server_id, address=f"http://127.0.0.1:{launch.port}"))
    print("a line on standard output")
    while (message := channel.receive()) is not None:
        note(event=type(message).__name__, **msgspec.to_builtins(message))
        if isinstance(message, WorkerUp):
            state["up"][message.worker_id] = message.socket_path
            state["down"].pop(message.worker_id, None)
        elif isinstance(message, WorkerDown):
            state["up"].pop(message.worker_id, None)
            state["down"][message.worker_id] = message.reason
        elif isinstance(message, Shutdown) and not os.environ.get("FAKE_SERVER_DEAF"):
            time.sleep(float(os.environ.get("FAKE_SERVER_DRAIN_S", "0")))
            note(event="drained", workers_there=[there(path) for path in state["up"].values()])
            return
    os._exit(4)


main()
