#!/usr/bin/env python3
"""Clients increment different keys of ONE session at once, through two sidecar processes on one MongoDB: no increment is lost."""

import argparse
import json
import threading

from rig import App, Client, Mongod, Sidecar, fail, increment, store_toml


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--each", type=int, default=20)
    options = options.parse_args()
    mongod = Mongod().start()
    app = App(increment)
    ports = [Sidecar(app.port, store_toml("mongodb", mongod)).start().port for _ in range(2)]
    first = Client(ports[0])
    first.get("/inc/start")
    barrier = threading.Barrier(options.clients)
    busy, broken = [0] * options.clients, []

    def work(number):
        clients = [Client(port, first.cookie) for port in ports]
        barrier.wait()
        done = 0
        while done < options.each:
            status, body = clients[(number + done) % 2].get(f"/inc/k{number}")
            if status == 503 and busy[number] < 1000:
                # Too many writers at once: refused, not acknowledged, asked again.
                busy[number] += 1
                continue
            done += 1
            if status != 200 or json.loads(body)[f"k{number}"] != done:
                broken.append(f"client {number}, increment {done}: {status} {body[:100]}")
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = [json.loads(Client(port, first.cookie).get("/get")[1]) for port in ports]
    expected = {"start": 1} | {f"k{number}": options.each for number in range(options.clients)}
    lost = sum(value - counted[0].get(key, 0) for key, value in expected.items())
    print(f"clients {options.clients}, increments {options.clients * options.each}, refused {sum(busy)}, lost {lost}")
    if broken or counted != [expected, expected]:
        fail("\n".join(broken[:10]) or f"{counted}")


if __name__ == "__main__":
    main()
