"""A program that listens at the port it is given and is ready a moment later."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED = time.monotonic()
LOADS_FOR_S = 0.3
CHUNKS = (
    b'data: {"choices": [{"index": 0, "text": "one"}]}\n\n',
    b'data: {"choices": [{"index": 0, "text": " two", "finish_reason": "length"}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n',
    b"data: [DONE]\n\n",
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self._answer(200 if time.monotonic() - STARTED > LOADS_FOR_S else 503, b"")
        elif self.path == "/v1/models":
            self._answer(200, b'{"data": [{"id": "made"}]}')
        else:
            self._answer(404, b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for data in CHUNKS:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(float(sys.argv[2]))
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    if sys.argv[2] == "broken":
        sys.exit("the model is torn")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
