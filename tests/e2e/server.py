"""What the end-to-end tests share: a real server on a free port, an HTTP client that sees every
byte, and checks that print what was expected. Standard library only."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

DEMO = 'deploy/demo/forge-tiny-Q8_0.gguf'
ADMIN = ('/v1/models/load', '/v1/models/unload', '/poison', '/crashes')


class Server:
    """`rocmforge serve` with the demo model (or the given models), stopped at exit of `with`. It
    listens on a Unix socket as well; the administrator's paths are asked there."""

    def __init__(self, bin_dir, *args, models=None, env=None, before=()):
        """before: options that stand before the command (for tests, see safety/README.md)."""
        self.log = tempfile.NamedTemporaryFile('w+b', prefix='rocmforge-e2e-', suffix='.log')
        self.folder = tempfile.TemporaryDirectory(prefix='rocmforge-e2e-')
        self.unix = os.path.join(self.folder.name, 'socket')
        self.state = os.path.join(self.folder.name, 'rocmforge')  # crash reports
        command = [os.path.join(bin_dir, 'rocmforge'), *before, 'serve', '--port', '0']
        if '--unix' not in args:
            command += ['--unix', self.unix]
        for m in models or ['forge-tiny=' + DEMO]:
            command += ['--model', m]
        self.process = subprocess.Popen(command + list(args), stdin=subprocess.DEVNULL,
                                        stderr=self.log, stdout=self.log,
                                        env={**os.environ, 'XDG_STATE_HOME': self.folder.name,
                                             **(env or {})})
        self.port = None

    def __enter__(self):
        try:
            self.wait_ready()
        except BaseException:  # __exit__ is not called then
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                print('the server did not stop within 30 s of SIGTERM')
                print(self.log_text()[-3000:])
                sys.exit(1)
        if kind is not None:
            print('--- server log ---')
            print(self.log_text()[-60000:])

    def log_text(self):
        with open(self.log.name, 'rb') as f:
            return f.read().decode(errors='replace')

    def wait_ready(self, seconds=180):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                fail(f'the server ended with {self.process.returncode}:\n{self.log_text()}')
            m = re.search(r'listening on http://[^\s]*:(\d+)', self.log_text())
            if m:
                self.port = int(m.group(1))
                try:
                    if self.get('/ready')[0] == 200:
                        return
                except OSError:
                    pass
            time.sleep(0.01)
        fail(f'not ready in {seconds} s:\n{self.log_text()}')

    def connect(self, timeout=60, path=''):
        c = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        if path in ADMIN or path.startswith('/crashes/'):
            c.sock = socket.socket(socket.AF_UNIX)
            c.sock.settimeout(timeout)
            c.sock.connect(self.unix)
        return c

    def get(self, path, headers=None):
        c = self.connect(path=path)
        c.request('GET', path, headers=headers or {})
        r = c.getresponse()
        body = r.read()
        c.close()
        return r.status, body

    def post(self, path, body, headers=None):
        """(status, parsed body). body: an object, or bytes sent as they are."""
        c = self.connect(path=path)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        c.request('POST', path, data, {'Content-Type': 'application/json', **(headers or {})})
        r = c.getresponse()
        raw = r.read()
        c.close()
        try:
            return r.status, json.loads(raw)
        except ValueError:
            return r.status, raw

    def stream(self, path, body):
        """Yields parsed SSE events; the last of a complete stream is the string '[DONE]'."""
        c = self.connect(path=path)
        c.request('POST', path, json.dumps({**body, 'stream': True}),
                  {'Content-Type': 'application/json'})
        r = c.getresponse()
        if r.status != 200:
            fail(f'{path}: {r.status} {r.read()!r}')
        try:
            for line in r:
                line = line.decode()  # every event is whole UTF-8, or this raises
                if line.startswith('data: '):
                    data = line[6:].strip()
                    yield data if data == '[DONE]' else json.loads(data)
        finally:
            c.close()

    def settle(self):
        """Waits until no helper of the supervisor runs any more (crash reports being written)."""
        end, quiet = time.monotonic() + 20, 0
        while quiet < 5 and time.monotonic() < end:  # one may follow the other
            quiet = 0 if self.child('rocmforge-probe') else quiet + 1
            time.sleep(0.02)

    def child(self, name):
        """pid of the running child program."""
        out = subprocess.run(['ps', '-o', 'pid=,args=', '--ppid', str(self.process.pid)],
                             capture_output=True, text=True).stdout
        for line in out.splitlines():
            pid, args = line.split(None, 1)
            if name in args.split()[0]:
                return int(pid)
        return None


def chat(text, **more):
    return {'messages': [{'role': 'user', 'content': text}], 'temperature': 0, 'max_tokens': 64,
            **more}


def stream_text(events):
    """(text of choice 0, finish reason, saw [DONE], in-band error or None)"""
    text, reason, done, error = '', None, False, None
    for e in events:
        if e == '[DONE]':
            done = True
        elif 'error' in e:
            error = e['error']
        else:
            for choice in e['choices']:
                if choice['index'] == 0:
                    text += choice.get('delta', {}).get('content') or choice.get('text') or ''
                    reason = choice.get('finish_reason') or reason
    return text, reason, done, error


def fail(message):
    print('FAILED:', message)
    sys.exit(1)


def check(condition, message):
    if not condition:
        # Raised, so that the server's log is printed on the way out.
        raise AssertionError(message)


def check_equal(got, expected, what):
    check(got == expected, f'{what}: got {got!r}, expected {expected!r}')


def fds_of(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def rss_kib(pid):
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1))


def kill(pid, sig=signal.SIGKILL):
    os.kill(pid, sig)


def raw_exchange(port, data, timeout=15):
    """Sends bytes on a new connection and returns all that comes back until it is closed."""
    with socket.create_connection(('127.0.0.1', port), timeout) as s:
        s.sendall(data)
        out = b''
        try:
            while True:
                part = s.recv(65536)
                if not part:
                    return out
                out += part
        except (socket.timeout, ConnectionResetError):
            return out
