#!/usr/bin/env python3
"""A real browser: over TLS with `secure = true` the cookie is set, kept from scripts, sent back and held to its SameSite; over plain
HTTP it is not set, and the log says why. Chromium, driven by chromedriver in plain W3C WebDriver; no library."""

import json
import os
import shutil
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "faults"))
from rig import App, Ports, Process, Sidecar, answers, eventually, fail, folder, increment, store_toml  # noqa: E402

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Browser(Process):
    """One Chromium with a profile of its own."""

    def __init__(self):
        super().__init__()
        self.session = None
        self.profile = folder()
        port = Ports.free()
        self.base = f"http://127.0.0.1:{port}"
        self.spawn(["chromedriver", f"--port={port}", f"--log-path={self.profile}/driver.log"], stdout=-3, stderr=-3)
        eventually("chromedriver", lambda: answers(port), 30)
        options = {"args": [*FLAGS, f"--user-data-dir={self.profile}/profile"]}
        if shutil.which("chromium"):
            options["binary"] = shutil.which("chromium")
        wanted = {"acceptInsecureCerts": True, "goog:chromeOptions": options}
        self.session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.base += f"/session/{self.session}"

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()[:600]}") from None

    def open(self, url):
        """The text of the page."""
        self.call("POST", "/url", {"url": url})
        return self.script("return document.body.innerText")

    def script(self, text):
        return self.call("POST", "/execute/sync", {"script": text, "args": []})

    def cookies(self):
        return self.call("GET", "/cookie")

    def kill(self):
        if self.session and self.child.poll() is None:
            # The driver takes Chromium with it only when it is asked to.
            session, self.session = self.session, None
            try:
                self.call("DELETE", "")
            except (RuntimeError, OSError) as error:
                print(f"the browser did not close: {error} ({session})", file=sys.stderr)
        super().kill()


def expect(what, got, wanted):
    if got != wanted:
        fail(f"{what}: {got!r} instead of {wanted!r}")
    print(f"ok: {what}: {got}")


class Pages:
    """The counter app, which also remembers what it was told with each request."""

    def __init__(self):
        self.seen = []
        self.app = App(self.answer)

    def answer(self, path, session, headers):
        self.seen.append((path, headers.get("X-Session-Status"), headers.get("Cookie")))
        return increment(path, session, headers)

    def last(self, path):
        return next((seen for seen in reversed(self.seen) if seen[0] == path), None)


def over_tls(browser, pages):
    sidecar = Sidecar(pages.app.port, store_toml("memory"), cookie="secure = true", listener="tls = { self_signed = true }").start()
    here, elsewhere = f"https://localhost:{sidecar.port}", f"https://127.0.0.1:{sidecar.port}"
    expect("first visit over TLS", browser.open(f"{here}/inc/n"), '{"n": 1}')
    expect("the cookie is sent back", browser.open(f"{here}/inc/n"), '{"n": 2}')
    cookies = [cookie for cookie in browser.cookies() if cookie["name"] == "connect.sid"]
    expect("cookies of the session", len(cookies), 1)
    cookie = cookies[0]
    shown = {key: cookie.get(key) for key in ("httpOnly", "secure", "sameSite", "path", "expiry")}
    expect("attributes", shown, {"httpOnly": True, "secure": True, "sameSite": "Lax", "path": "/", "expiry": None})
    expect("what a script sees of it", browser.script("return document.cookie"), "")
    expect("what the app sees of it", pages.last("/inc/n")[2], None)

    # Another site: a form that posts to us goes without the cookie, a link goes with it.
    browser.open(f"{elsewhere}/other")
    browser.script(
        f"const form = document.createElement('form'); form.method = 'post'; form.action = '{here}/posted';"
        "document.body.append(form); form.submit()"
    )
    eventually("the form's arrival", lambda: pages.last("/posted"))
    expect("a form posted from another site", pages.last("/posted")[1], "none")
    browser.open(f"{elsewhere}/other")
    browser.script(f"const link = document.createElement('a'); link.href = '{here}/get'; document.body.append(link); link.click()")
    eventually("the link's arrival", lambda: pages.last("/get"))
    expect("a link from another site", pages.last("/get")[1], "live")

    expect("logout", browser.open(f"{here}/logout"), "{}")
    expect("cookies after logout", [cookie["name"] for cookie in browser.cookies()], [])
    expect("exit code", sidecar.stop(), 0)


def over_plain_http(browser, pages):
    sidecar = Sidecar(pages.app.port, store_toml("memory"), cookie="secure = true").start()
    here = f"http://127.0.0.1:{sidecar.port}"
    expect("first visit over plain HTTP", browser.open(f"{here}/inc/n"), '{"n": 1}')
    expect("second visit over plain HTTP", browser.open(f"{here}/inc/n"), '{"n": 1}')
    expect("cookies over plain HTTP", browser.cookies(), [])

    # One line with the peer, the header that was seen and the rule that failed.
    def reason():
        lines = sidecar.log().splitlines()
        return [line for line in lines if all(word in line.lower() for word in ("secure", "127.0.0.1", "x-forwarded-proto"))]

    try:
        print(f"ok: the log says why: {eventually('a log line that says why', reason)[0]}")
    except TimeoutError:
        fail("no log line says why the cookie was not set:\n" + sidecar.log())
    expect("exit code", sidecar.stop(), 0)


def twins(browser, pages):
    """A stale cookie with another path and domain stands before the live one: the user stays, the stale one goes."""
    sidecar = Sidecar(pages.app.port, store_toml("memory")).start()
    here = f"http://shop.example.localhost:{sidecar.port}"

    def ours():
        return [cookie for cookie in browser.cookies() if cookie["name"] == "connect.sid"]

    browser.open(f"{here}/inc/n")
    stale = ours()[0]["value"]
    browser.open(f"{here}/logout")
    expect("a new session", browser.open(f"{here}/inc/n"), '{"n": 1}')
    for path, domain in (("/inc", None), ("/inc/n", ".example.localhost"), ("/", "shop.example.localhost")):
        twin = {"name": "connect.sid", "value": stale, "path": path, "httpOnly": True}
        browser.call("POST", "/cookie", {"cookie": twin | ({"domain": domain} if domain else {})})
    expect("cookies with stale twins", len(ours()), 4)
    expect("the session goes on", browser.open(f"{here}/inc/n"), '{"n": 2}')
    expect("the twins are forgotten", [(cookie["path"], cookie["value"] == stale) for cookie in ours()], [("/", False)])
    expect("the session still goes on", browser.open(f"{here}/inc/n"), '{"n": 3}')
    expect("exit code", sidecar.stop(), 0)


def older_name(browser, pages):
    """A sidecar that takes over from one with another cookie name: nobody is logged out."""
    store = f'kind = "embedded"\npath = "{folder()}/sessions.redb"'
    before = Sidecar(pages.app.port, store).start()
    browser.open(f"http://renamed.localhost:{before.port}/inc/n")
    expect("exit code", before.stop(), 0)
    after = Sidecar(pages.app.port, store, session='name = "app.sid"\naccept_names = ["connect.sid"]').start()
    here = f"http://renamed.localhost:{after.port}"
    expect("the session goes on under a new name", browser.open(f"{here}/inc/n"), '{"n": 2}')
    expect("names of the cookies", [cookie["name"] for cookie in browser.cookies()], ["app.sid"])
    expect("and goes on", browser.open(f"{here}/inc/n"), '{"n": 3}')
    expect("exit code", after.stop(), 0)


def main():
    pages = Pages()
    browser = Browser()
    over_tls(browser, pages)
    over_plain_http(browser, pages)
    twins(browser, pages)
    older_name(browser, pages)


if __name__ == "__main__":
    main()
