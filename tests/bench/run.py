#!/usr/bin/env python3
"""CPU microseconds per request of the proxy's process, as ratios to nginx: tests/bench/run.py (all of it), --smoke (does it run?).

Pinned alike: the proxy on one core, load (wrk, 1 thread, 64 connections) and app (a second nginx, 1 KiB answers) on the other. One
worker each: nginx `worker_processes 1` with 128 kept-alive connections to the app, the sidecar `server.threads = 1`. No access
log on either side. CPU is utime + stime from /proc over the requests that wrk counted. Rounds are interleaved and shuffled; figures
are medians, ratios are taken within a round.
"""

import argparse
import os
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "faults"))
from rig import Client, Ports, Process, Sidecar, answers, eventually, fail, folder, server_of, store_toml  # noqa: E402

CONNECTIONS = 64
TICK = os.sysconf("SC_CLK_TCK")
# About 400 bytes, as a session with a user, a cart and a token is.
SESSION = (
    '{"user":{"id":4711,"name":"zoe.example","mail":"zoe@mail.example","roles":["reader","editor"]},'
    '"csrf":"6f1ed002ab5595859014ebf0951522d96f1ed002ab559585","cart":[{"sku":"A-1001","n":2},{"sku":"B-2002","n":1}],'
    '"locale":"en-GB","theme":"dark","seen":1700000000,"flash":[],"returnTo":"/account/orders?page=2&sort=date",'
    '"features":{"beta":true,"newCheckout":false},"visits":128}'
)
# The goals: ratios to nginx, MiB, KiB, milliseconds.
GOALS = {"off": 2.2, "memory": 2.6, "embedded": 2.6, "mongodb": 5.0}
IDLE_MIB, CONNECTION_KIB, START_MS = 20, 20, 100


def cores():
    """(the proxy's core, everybody else's)"""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[-1]


PROXY_CORE, LOAD_CORE = cores()


def pinned(core):
    return ["taskset", "-c", str(core)]


class Nginx(Process):
    """One worker, kept-alive connections, no logs."""

    def __init__(self, core, location, upstream=""):
        super().__init__()
        self.port, home = Ports.free(), folder()
        temp = "".join(f"{kind}_temp_path {home}/{kind};\n" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        with open(f"{home}/nginx.conf", "w") as file:
            file.write(
                f"{'user root;' if os.getuid() == 0 else ''} daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error warn;\n"
                "worker_rlimit_nofile 10000;\nevents { worker_connections 8192; }\n"
                f"http {{ {temp} access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type text/plain;\n"
                f"{upstream}\nserver {{ listen 127.0.0.1:{self.port} backlog=4096;\n{location}\n}} }}\n"
            )
        self.spawn([*pinned(core), "nginx", "-p", home, "-e", f"{home}/error", "-c", f"{home}/nginx.conf"])
        eventually("nginx", lambda: answers(self.port))

    def kill(self):
        # The master takes its worker along only when it is asked to.
        if self.child and self.child.poll() is None:
            self.stop()


def app():
    body, update = "x" * 1024, SESSION.replace("'", "")
    return Nginx(
        LOAD_CORE,
        f"location / {{ return 200 '{body}'; }}\n"
        f"location = /create {{ add_header X-Session-Update '{update}'; return 200 'created'; }}\n"
        "location = /seen { return 200 '$http_x_session'; }",
    )


def nginx_proxy(port):
    return Nginx(
        PROXY_CORE,
        'location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }',
        f"upstream app {{ server 127.0.0.1:{port}; keepalive 128; keepalive_requests 100000000; }}",
    )


class Subject:
    """A proxy and the session that the load presents to it."""

    def __init__(self, name, process, live=True):
        self.name, self.process, self.cookie, self.runs = name, process, None, []
        if live:
            client = Client(process.port)
            client.get("/create")
            self.cookie = client.cookie
            if client.get("/seen") != (200, SESSION.encode()):
                fail(f"{name}: the session is not live")

    def run(self, seconds):
        """CPU microseconds per request and requests per second."""
        header = ["-H", f"Cookie: {self.cookie}"] if self.cookie else []
        url = f"http://127.0.0.1:{self.process.port}/"
        before = cpu(self.process.pid)
        load = [*pinned(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *header, url]
        said = subprocess.run(load, capture_output=True, text=True).stdout
        spent = cpu(self.process.pid) - before
        done = re.search(r"(\d+) requests in ([\d.]+)s", said)
        if not done or int(done[1]) == 0 or "Non-2xx" in said or "Socket errors" in said:
            fail(f"{self.name}: {said}")
        return spent / TICK * 1e6 / int(done[1]), int(done[1]) / float(done[2])


def cpu(pid):
    """Ticks (user and system) of a process and its children that live."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = file.read().split()
    return int(fields[11]) + int(fields[12]) + sum(cpu(child) for child in children)


def resident(pid):
    """KiB of a process and its children."""
    with open(f"/proc/{pid}/status") as file:
        own = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return own + sum(resident(child) for child in file.read().split())


# Where each touch is a write to somebody else's store or to the disk.
THROTTLED = ["mongodb", "redis", "file"]


def sidecar(upstream, kind, mode="on", start=True):
    server = server_of(kind)
    if server:
        server.start(pinned(LOAD_CORE))
    store = store_toml(kind, server, 'touch_after = "1h"' if kind in THROTTLED else "")
    routes = f'[[route]]\npath = "/"\nupstream = "app"\nsession = "{mode}"\n'
    made = Sidecar(upstream.port, store, routes=routes, log="access = false")
    return made.start(prefix=pinned(PROXY_CORE)) if start else made


def measure(subjects, rounds, seconds):
    for subject in subjects:
        subject.run(1)
    for number in range(rounds):
        for subject in random.sample(subjects, len(subjects)):
            subject.runs.append(subject.run(seconds))
            print(f"  round {number + 1}: {subject.name:<22} {subject.runs[-1][0]:6.1f} us", file=sys.stderr)


def table(subjects):
    """Prints the medians; returns the ratios."""
    reference = [us for us, _ in subjects[0].runs]
    print(f"{'proxy':<22} {'us/request':>10} {'x nginx':>8} {'goal':>6} {'requests/s':>11}")
    ratios = {}
    for subject in subjects:
        us = statistics.median(run[0] for run in subject.runs)
        rate = statistics.median(run[1] for run in subject.runs)
        ratios[subject.name] = statistics.median(run[0] / base for run, base in zip(subject.runs, reference))
        goal = GOALS.get(subject.name)
        print(f"{subject.name:<22} {us:10.1f} {ratios[subject.name]:8.2f} {goal or '':>6} {rate:11.0f}")
    return ratios


def idle_connections(process, count):
    """KiB per connection that has had one answer and is kept alive."""
    before = resident(process.pid)
    streams = []
    # One after another: what is asked is what an idle connection costs, not a burst of requests.
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", process.port), 10)
        stream.sendall(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        if not stream.recv(4096).startswith(b"HTTP/1.1 200"):
            fail("an idle connection got no answer")
        streams.append(stream)
    grown = resident(process.pid) - before
    for stream in streams:
        stream.close()
    return grown / count


def first_answer(upstream):
    """Milliseconds from exec to the first answer, embedded store."""
    made = sidecar(upstream, "embedded", start=False)
    start = time.perf_counter()
    made.exec(pinned(PROXY_CORE))
    while True:
        try:
            if Client(made.port).get("/")[0] == 200:
                break
        except OSError:
            time.sleep(0.0005)
        if time.perf_counter() - start > 20:
            fail("no first answer:\n" + made.log())
    took = (time.perf_counter() - start) * 1000
    made.kill()
    return took


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true", help="one short round, no goals")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--connections", type=int, default=2000, help="idle ones, for memory")
    options = options.parse_args()
    if options.smoke:
        options.rounds, options.seconds, options.connections = 1, 1, 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    upstream = app()
    subjects = [
        Subject("nginx", nginx_proxy(upstream.port), live=False),
        Subject("off", sidecar(upstream, "memory", mode="off"), live=False),
        *(Subject(kind, sidecar(upstream, kind)) for kind in ["memory", "embedded", "mongodb", "redis", "file"]),
    ]
    if PROXY_CORE == LOAD_CORE:
        print("one core only: proxy and load share it")
    print(f"proxy on core {PROXY_CORE}, load and app on core {LOAD_CORE}, load average {os.getloadavg()[0]:.2f}")
    measure(subjects, options.rounds, options.seconds)
    ratios = table(subjects)

    fresh = sidecar(upstream, "embedded")
    idle = resident(fresh.pid) / 1024
    each = idle_connections(fresh, options.connections)
    nginx_each = idle_connections(subjects[0].process, options.connections)
    start = statistics.median(first_answer(upstream) for _ in range(1 if options.smoke else 5))
    print(f"idle memory {idle:.1f} MiB (goal {IDLE_MIB})")
    print(f"idle connection {each:.1f} KiB (goal {CONNECTION_KIB}; nginx {nginx_each:.1f})")
    print(f"first answer {start:.0f} ms after exec (goal {START_MS})")

    missed = [name for name, goal in GOALS.items() if ratios[name] > goal]
    missed += [name for name, value, goal in [("idle memory", idle, IDLE_MIB), ("idle connection", each, CONNECTION_KIB), ("first answer", start, START_MS)] if value > goal]
    if missed and not options.smoke:
        fail("goals missed: " + ", ".join(missed))


if __name__ == "__main__":
    main()
