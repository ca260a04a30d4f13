#!/usr/bin/env python3
"""MongoDB down at the start, killed under load, back again: 503 with Retry-After within the deadline, routes without sessions
unaffected, recovery without a restart."""

import argparse
import collections
import json
import threading
import time

from rig import App, Client, Mongod, Sidecar, eventually, fail, increment, store_toml

DEADLINE = 1.0
ROUTES = """
[[route]]
path = "/"
upstream = "app"
[[route]]
path = "/off"
upstream = "app"
session = "off"
"""


def answer(path, session, headers):
    return (None, None, "off") if path.startswith("/off") else increment(path, session, headers)


class Load:
    """Clients that ask without a pause; (status, seconds) of every answer."""

    def __init__(self, port, path, cookie, clients):
        self.seen, self.stop = collections.deque(), threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(port, path, cookie)) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def work(self, port, path, cookie):
        client = Client(port, cookie)
        while not self.stop.is_set():
            start = time.monotonic()
            status, _ = client.get(path)
            self.seen.append((status, time.monotonic() - start, client.headers.get("Retry-After")))
            if status == 503:
                time.sleep(0.01)

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        return list(self.seen)


def check_503(status, retry, seconds, what):
    if status != 503 or not (retry or "").isdigit() or seconds > DEADLINE + 1:
        fail(f"{what}: status {status}, Retry-After {retry!r}, {seconds:.2f} s")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=2, help="of load in each state")
    options = options.parse_args()
    mongod = Mongod()
    app = App(answer)
    sidecar = Sidecar(app.port, store_toml("mongodb", mongod), routes=ROUTES, more=f'[timeouts]\nstore = "{DEADLINE:.0f}s"')
    sidecar.start("/healthz")
    client = Client(sidecar.port)

    start = time.monotonic()
    status, _ = client.get("/inc/n")
    took, retry = time.monotonic() - start, client.headers.get("Retry-After")
    check_503(status, retry, took, "mongod not started yet")
    if sidecar.status("/readyz") == 200:
        fail("ready without a store")
    if client.get("/off")[0] != 200:
        fail("a route without sessions needs the store")
    print(f"down at the start: 503 after {took:.2f} s, Retry-After {retry}")

    mongod.start()
    start = time.monotonic()
    eventually("recovery after the first start", lambda: client.get("/inc/n")[0] == 200, 30)
    print(f"started: serving after {time.monotonic() - start:.2f} s")

    acknowledged = json.loads(client.get("/get")[1])["n"]
    sessions = Load(sidecar.port, "/get", client.cookie, 8)
    others = Load(sidecar.port, "/off", None, 4)
    time.sleep(options.seconds)
    mongod.kill()
    time.sleep(options.seconds + DEADLINE)
    resident = sidecar.memory()
    mongod.start()
    start = time.monotonic()
    eventually("recovery under load", lambda: client.get("/get")[0] == 200, 30)
    recovered = time.monotonic() - start
    time.sleep(options.seconds)
    sessions, others = sessions.end(), others.end()

    statuses = collections.Counter(status for status, _, _ in sessions)
    slowest = max(seconds for status, seconds, _ in sessions if status == 503) if statuses[503] else 0
    off = collections.Counter(status for status, _, _ in others)
    slowest_off = max(seconds for _, seconds, _ in others)
    print(
        f"killed under load: session route {dict(statuses)}, slowest 503 {slowest:.2f} s; off route {dict(off)}, slowest "
        f"{slowest_off:.3f} s; RSS {resident // 1024} MiB; recovered {recovered:.2f} s after mongod's return"
    )
    if set(statuses) != {200, 503}:
        fail(f"statuses {dict(statuses)}")
    if not all(retry and retry.isdigit() for status, _, retry in sessions if status == 503):
        fail("a 503 without Retry-After")
    if slowest > DEADLINE + 1:
        fail(f"a 503 took {slowest:.2f} s")
    if set(off) != {200} or slowest_off > DEADLINE:
        fail(f"the route without sessions suffered: {dict(off)}, {slowest_off:.2f} s")
    if json.loads(client.get("/get")[1])["n"] != acknowledged:
        fail("the session is not what was acknowledged")
    if sidecar.stop() != 0:
        fail("exit code")


if __name__ == "__main__":
    main()
