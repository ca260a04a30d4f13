#!/usr/bin/env python3
"""Bodies of 1 GiB pass up and down in flat memory, over HTTP/1.1 (with a length and chunked) and HTTP/2."""

import argparse
import shutil
import socket
import subprocess
import threading
import time

from rig import PATIENCE, App, Handler, Sidecar, fail, store_toml

CHUNK = bytes(range(256)) * 1024
ALLOWED = 24 * 1024  # KiB above what the sidecar held before


class Bodies(Handler):
    """GET sends `server.size` bytes, POST counts what it gets."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.size))
        self.end_headers()
        for _ in range(self.server.size // len(CHUNK)):
            self.wfile.write(CHUNK)
        self.wfile.flush()

    def do_POST(self):
        count = 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                count += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers["Content-Length"])
            while left:
                got = len(self.rfile.read(min(left, 1 << 18)))
                left, count = left - got, count + got
        body = str(count).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def connect(port):
    stream = socket.create_connection(("127.0.0.1", port), PATIENCE * 4)
    return stream, stream.makefile("rb", 1 << 18)


def head(reader):
    status = int(reader.readline().split()[1])
    fields = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, value = line.decode().split(":", 1)
        fields[name.lower()] = value.strip()
    return status, fields


def download(port, size):
    stream, reader = connect(port)
    stream.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
    status, fields = head(reader)
    got, buffer = 0, bytearray(1 << 18)
    while count := reader.readinto(buffer):
        got += count
    return status == 200 and got == size == int(fields["content-length"])


def upload(port, size, chunked):
    stream, reader = connect(port)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    stream.sendall(f"POST / HTTP/1.1\r\nHost: app.test\r\n{framing}\r\n\r\n".encode())
    piece = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK) if chunked else CHUNK
    for _ in range(size // len(CHUNK)):
        stream.sendall(piece)
    stream.sendall(b"0\r\n\r\n" if chunked else b"")
    status, fields = head(reader)
    return status == 200 and int(reader.read(int(fields["content-length"]))) == size


def curl(port, size, up):
    """HTTP/2, prior knowledge."""
    command = ["curl", "-s", "--http2-prior-knowledge", "--max-time", str(PATIENCE * 20), f"http://127.0.0.1:{port}/"]
    if not up:
        command += ["-o", "/dev/null", "-w", "%{size_download}"]
        return int(subprocess.run(command, capture_output=True, text=True).stdout or 0) == size
    child = subprocess.Popen([*command, "-X", "POST", "-T", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for _ in range(size // len(CHUNK)):
        child.stdin.write(CHUNK)
    return int(child.communicate()[0] or 0) == size


class Peak:
    """The sidecar's largest RSS while something runs."""

    def __init__(self, sidecar):
        self.sidecar, self.peak, self.over = sidecar, 0, threading.Event()

    def __enter__(self):
        self.before = self.sidecar.memory()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(0.01):
            self.peak = max(self.peak, self.sidecar.memory())

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1024)
    size = options.parse_args().mib << 20
    app = App(None, Bodies)
    app.size = size
    sidecar = Sidecar(app.port, store_toml("memory")).start()
    runs = {
        "HTTP/1.1 download": lambda: download(sidecar.port, size),
        "HTTP/1.1 upload": lambda: upload(sidecar.port, size, False),
        "HTTP/1.1 chunked upload": lambda: upload(sidecar.port, size, True),
    }
    if shutil.which("curl"):
        runs["HTTP/2 download"] = lambda: curl(sidecar.port, size, False)
        runs["HTTP/2 upload"] = lambda: curl(sidecar.port, size, True)
    bad = []
    for name, run in runs.items():
        start = time.monotonic()
        with Peak(sidecar) as peak:
            whole = run()
        seconds = time.monotonic() - start
        flat = peak.peak - peak.before <= ALLOWED
        print(
            f"{name}: {size >> 20} MiB in {seconds:.1f} s, RSS before {peak.before / 1024:.1f} MiB, peak {peak.peak / 1024:.1f} MiB"
            f"{'' if whole else ', NOT WHOLE'}{'' if flat else ', NOT FLAT'}"
        )
        if not (whole and flat):
            bad.append(name)
    if bad:
        fail(", ".join(bad) + "\n" + sidecar.log()[-2000:])


if __name__ == "__main__":
    main()
