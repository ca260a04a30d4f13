#!/usr/bin/env python3
"""kill -9 of the sidecar at random moments under load: every acknowledged change is there after the restart.

Each client owns sessions that nobody else writes and counts what was acknowledged. What is stored may be ahead of that by the requests
that got no answer (the kill came between the write and the answer), never behind. A logout that was acknowledged stays one.
"""

import argparse
import json
import random
import threading
import time

from rig import LOST, App, Client, Sidecar, fail, increment, server_of, store_toml


class Ledger:
    """What the clients know together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = self.lost = 0
        self.sessions, self.logged_out, self.complaints = [], [], []
        self.stop = threading.Event()

    def complain(self, text):
        with self.lock:
            self.lost += 1
            self.complaints.append(text)


def work(port, ledger, seed):
    """Counts up in a session, ends it now and then, begins another; reconnects for as long as the sidecar is away."""
    dice = random.Random(seed)
    client, count, unanswered = Client(port), 0, 0
    while not ledger.stop.is_set():
        leave = client.cookie and dice.random() < 0.03
        try:
            before = client.cookie
            status, body = client.get("/logout" if leave else "/inc/n")
        except LOST as error:
            # No answer, no acknowledgement, but it may have happened. A logout so: that session is nobody's any more.
            unanswered += not isinstance(error, ConnectionRefusedError)
            if leave:
                client.cookie, count, unanswered = None, 0, 0
            time.sleep(0.005)
            continue
        if status != 200:
            ledger.complain(f"status {status} {body[:80]}")
            continue
        with ledger.lock:
            ledger.acknowledged += 1
        if leave:
            ledger.logged_out.append(before)
            client.cookie, count, unanswered = None, 0, 0
            continue
        got = json.loads(body)["n"]
        if not count < got <= count + 1 + unanswered or (before and client.cookie is None):
            ledger.complain(f"{count} acknowledged, the next answer says {got}")
        count, unanswered = got, 0
        if dice.random() < 0.02:
            ledger.sessions.append((client.cookie, count, 0))
            client.cookie, count = None, 0
    if client.cookie:
        ledger.sessions.append((client.cookie, count, unanswered))


def verify(port, ledger):
    """Every session that was left alone is as it was left; every logout is final."""
    for cookie, count, unanswered in ledger.sessions:
        status, body = Client(port, cookie).get("/get")
        got = json.loads(body).get("n", 0) if status == 200 else None
        if got is None or not count <= got <= count + unanswered:
            ledger.complain(f"a session with {count} acknowledged holds {got}")
    for cookie in ledger.logged_out:
        status, body = Client(port, cookie).get("/get")
        if (status, json.loads(body)) != (200, {}):
            ledger.complain("a session that was logged out is back")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--store", choices=["embedded", "mongodb", "redis", "file"], default="embedded")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = options.parse_args()
    print(f"seed {options.seed}")
    dice = random.Random(options.seed)
    server = server_of(options.store)
    if server:
        server.start()
    app = App(increment)
    sidecar = Sidecar(app.port, store_toml(options.store, server)).start()
    ledger = Ledger()
    threads = [
        threading.Thread(target=work, args=(sidecar.port, ledger, options.seed + n), daemon=True) for n in range(options.clients)
    ]
    for thread in threads:
        thread.start()
    idle = 0
    for _ in range(options.kills):
        before = ledger.acknowledged
        time.sleep(dice.uniform(0.01, 0.2))
        sidecar.kill()
        idle += ledger.acknowledged == before
        sidecar.start()
    ledger.stop.set()
    for thread in threads:
        thread.join()
    verify(sidecar.port, ledger)
    code = sidecar.stop()
    print(
        f"store {options.store}: kills {options.kills} ({idle} of them between requests), acknowledged {ledger.acknowledged}, "
        f"sessions {len(ledger.sessions)}, logouts {len(ledger.logged_out)}, lost {ledger.lost}"
    )
    for text in ledger.complaints[:20]:
        print("  ", text)
    if ledger.lost or code != 0:
        fail(f"{ledger.lost} lost, exit code {code}\n{sidecar.log()[-2000:]}")
    if idle > options.kills // 2 or not ledger.logged_out:
        fail("there was no load to speak of: this run shows nothing")


if __name__ == "__main__":
    main()
