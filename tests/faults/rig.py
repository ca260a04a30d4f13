"""Real parts for the Python tests: mongod, the sidecar, an app that knows only the two headers, a client with a cookie jar.

Standard library only. Every process is a child of the script and ends with it.
"""

import atexit
import glob
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECRET = "the-secret-of-the-tests-0123456789abcdef"
PATIENCE = float(os.environ.get("CLOAKROOM_TEST_PATIENCE", "15"))


def fail(text):
    print(f"FAILED: {text}")
    sys.exit(1)


def eventually(what, probe, patience=PATIENCE):
    """Asks again and again until `probe` has an answer."""
    deadline = time.monotonic() + patience
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience} s in vain: {what}")
        time.sleep(0.005)


# --- ports -----------------------------------------------------------------------------------------------------------


class Ports:
    """A block of ports below the ephemeral range, claimed by holding its first one (as in tests/it/support/ports.rs)."""

    guard = None
    start = next = 0

    @classmethod
    def free(cls):
        if cls.guard is None:
            cls.claim()
        for _ in range(199):
            cls.next = cls.next % 199 + 1
            port = cls.start + cls.next
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    probe.listen(1)
                    return port
                except OSError:
                    continue
        raise OSError("no free port")

    @classmethod
    def claim(cls):
        for turn in range(100):
            start = 12000 + (os.getpid() + turn) % 100 * 200
            guard = socket.socket()
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                guard.bind(("127.0.0.1", start))
                guard.listen(1)
            except OSError:
                guard.close()
                continue
            cls.guard, cls.start = guard, start
            return
        raise OSError("every block of ports is taken")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


# --- processes -------------------------------------------------------------------------------------------------------


FOLDERS, PROCESSES = [], []


@atexit.register
def clean_up():
    for process in PROCESSES:
        process.kill()
    for path in FOLDERS:
        shutil.rmtree(path, ignore_errors=True)


def folder():
    FOLDERS.append(tempfile.mkdtemp(prefix="cloakroom-"))
    return FOLDERS[-1]


def binary():
    """The sidecar under test: CLOAKROOM_BIN, else the newest build."""
    named = os.environ.get("CLOAKROOM_BIN")
    built = [named] if named else glob.glob(os.path.join(ROOT, "target", "*", "cloakroom"))
    built = [path for path in built if os.path.isfile(path)]
    if not built:
        fail(f"no sidecar to test ({named or 'target/*/cloakroom'}): cargo build --release, or set CLOAKROOM_BIN")
    return max(built, key=os.path.getmtime)


def mongod_binary():
    found = os.environ.get("CLOAKROOM_TEST_MONGOD") or shutil.which("mongod") or os.path.join(ROOT, "tests/.cache/mongod")
    if not os.access(found, os.X_OK):
        fail("no mongod: run tests/setup.sh core, or set CLOAKROOM_TEST_MONGOD")
    return found


class Process:
    """A child that is killed when the script ends."""

    def __init__(self):
        self.child = None
        PROCESSES.append(self)

    def spawn(self, command, **options):
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        return self.child

    def kill(self):
        """kill -9"""
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(PATIENCE * 3)

    @property
    def pid(self):
        return self.child.pid


class Mongod(Process):
    """A mongod with a data folder of its own; `start` after `kill` continues with the same data."""

    def __init__(self):
        super().__init__()
        self.port, self.data = Ports.free(), folder()

    def start(self, prefix=()):
        command = [*prefix, mongod_binary(), "--dbpath", self.data, "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--setParameter", "ttlMonitorEnabled=false"]
        self.spawn(command, stdout=open(os.path.join(self.data, "log"), "ab"), stderr=subprocess.STDOUT)

        def ready():
            if self.child.poll() is not None:
                fail("mongod ended: " + open(os.path.join(self.data, "log")).read()[-2000:])
            return answers(self.port)

        eventually("mongod", ready, 60)
        return self

    def url(self, database="app"):
        return f"mongodb://127.0.0.1:{self.port}/{database}"


class Redis(Process):
    """A redis-server that keeps nothing on disk."""

    def __init__(self):
        super().__init__()
        self.port, self.data = Ports.free(), folder()

    def start(self, prefix=()):
        command = [*prefix, "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.data]
        self.spawn([*command, "--save", "", "--appendonly", "no"], stdout=open(os.path.join(self.data, "log"), "ab"), stderr=subprocess.STDOUT)
        eventually("redis-server", lambda: answers(self.port), 60)
        return self

    def url(self):
        return f"redis://127.0.0.1:{self.port}"


def server_of(kind):
    """The server that a kind of store needs; None where it needs none."""
    servers = {"mongodb": Mongod, "redis": Redis}
    return servers[kind]() if kind in servers else None


def store_toml(kind, server=None, more=""):
    lines = [f'kind = "{kind}"']
    if kind in ("mongodb", "redis"):
        lines.append(f'url = "{server.url()}"')
    if kind == "embedded":
        lines.append('path = "sessions.redb"')
    return "\n".join(lines + [more])


class Sidecar(Process):
    """The sidecar's binary with a config of its own; `start` after `kill` continues with the same folder and ports."""

    def __init__(self, app_port, store, session="", cookie="", listener="", server="threads = 1", routes=None, more="", log=""):
        super().__init__()
        self.port, self.admin, self.home = Ports.free(), Ports.free(), folder()
        routes = routes or '[[route]]\npath = "/"\nupstream = "app"\n'
        with open(os.path.join(self.home, "proxy.toml"), "w") as file:
            file.write(
                f'[[listener]]\naddress = "127.0.0.1:{self.port}"\n{listener}\n[server]\n{server}\n'
                f'[session]\nsecrets = ["{SECRET}"]\n{session}\n[session.cookie]\n{cookie}\n[store]\n{store}\n'
                f'[upstream.app]\nservers = ["http://127.0.0.1:{app_port}"]\n{routes}\n'
                f'[admin]\naddress = "127.0.0.1:{self.admin}"\n{"[log]" if log else ""}\n{log}\n{more}\n'
            )

    def exec(self, prefix=()):
        log = open(os.path.join(self.home, "log"), "ab")
        self.spawn([*prefix, binary(), "--config", "proxy.toml"], cwd=self.home, stdout=log, stderr=subprocess.STDOUT)

    def start(self, ready="/readyz", prefix=()):
        self.exec(prefix)
        eventually(f"the sidecar's {ready}", lambda: self.status(ready) == 200)
        return self

    def status(self, path):
        """What the admin port answers; None when nothing does."""
        if self.child.poll() is not None:
            fail(f"the sidecar ended with {self.child.returncode}:\n{self.log()[-3000:]}")
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def log(self):
        with open(os.path.join(self.home, "log"), errors="replace") as file:
            return file.read()

    def memory(self, key="VmRSS"):
        """Kilobytes."""
        with open(f"/proc/{self.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(key + ":"))


# --- the app ---------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """An app without any session code: it reads X-Session and may answer X-Session-Update and X-Session-Control."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        session = json.loads(self.headers.get("X-Session", "{}"))
        update, control, body = self.server.answer(self.path, session, self.headers)
        self.send_response(200)
        if update is not None:
            self.send_header("X-Session-Update", json.dumps(update))
        if control:
            self.send_header("X-Session-Control", control)
        body = json.dumps(body).encode()
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    do_POST = do_GET

    def log_message(self, *_):
        pass


class App(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """`answer(path, session, headers)` gives (update, control, body)."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, answer, handler=Handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.answer = answer
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def handle_error(self, request, client_address):
        # A connection that the killed sidecar left behind is what these tests are about.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def increment(path, session, _headers):
    """/get shows the session, /logout destroys it, /inc/<key> adds one to a key."""
    if path == "/get":
        return None, None, session
    if path == "/logout":
        return None, "destroy", {}
    if not path.startswith("/inc/"):
        return None, None, "no such page"
    key = path.rsplit("/", 1)[1]
    value = session.get(key, 0) + 1
    return {key: value}, None, {key: value}


# --- the client ------------------------------------------------------------------------------------------------------


class Client:
    """One kept-alive connection and the session's cookie. Raises OSError or HTTPException when there is no answer."""

    def __init__(self, port, cookie=None, timeout=PATIENCE):
        self.cookie, self.timeout = cookie, timeout
        self.aim(port)

    def aim(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=self.timeout)

    def get(self, path):
        headers = {"Cookie": self.cookie} if self.cookie else {}
        try:
            self.connection.request("GET", path, headers=headers)
            response = self.connection.getresponse()
            body = response.read()
        except BaseException:
            self.connection.close()
            raise
        for line in response.headers.get_all("Set-Cookie") or []:
            self.cookie = None if "Expires=Thu, 01 Jan 1970" in line else line.split(";")[0]
        self.headers = response.headers
        return response.status, body


LOST = (OSError, http.client.HTTPException)
