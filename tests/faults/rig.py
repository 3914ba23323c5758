"""What the rows of the fault matrix share: a real server that can be looked into, clients that count
what they are told, ways to catch a worker in a phase, and what must hold after every row."""
import fcntl
import glob
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e'))
from server import (DEMO, Server, chat, check, check_equal, fds_of, raw_exchange,  # noqa: E402,F401
                    rss_kib)

STORY = chat('Tell me a story about a brave mouse.', max_tokens=400, logit_bias={'2047': -100})
MARK = 'ROCMFORGE_FAULT_MARK'
SUPERVISOR_GROWTH_KIB = 1024


class Skip(Exception):
    """The row cannot run on this machine; says why."""


class Rig(Server):
    """A server for one row. before: options of `rocmforge` that stand before the command."""

    def __init__(self, bin_dir, *args, before=(), models=None, env=None, ready=True, libexec=None,
                 stderr=None, preexec=None):
        self.mark = f'{os.getpid()}-{random.getrandbits(40):x}'
        self.log = open(f'/tmp/rocmforge-faults-{self.mark}.log', 'w+b')
        command = [os.path.join(bin_dir, 'rocmforge'), *before]
        if libexec:
            command += ['--libexec', libexec]
        command += ['serve', '--port', '0']
        for m in models if models is not None else ['forge-tiny=' + DEMO]:
            command += ['--model', m]
        self.process = subprocess.Popen(
            command + list(args), stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log if stderr is None else stderr, preexec_fn=preexec,
            env={**os.environ, 'XDG_CONFIG_HOME': '/nonexistent',
                 'XDG_STATE_HOME': f'/tmp/rocmforge-faults-{self.mark}.state',
                 MARK: self.mark, **(env or {})})
        self.port, self.waits, self.before = None, ready, None

    def __enter__(self):
        try:
            if self.waits:
                self.wait_ready()
                self.settle()
        except BaseException:  # __exit__ is not called then
            self.__exit__(*sys.exc_info())
            raise
        return self

    def settle(self):
        """What the row is compared with at its end."""
        self.post('/v1/completions', {'prompt': 'x', 'max_tokens': 1})
        self.before = (self.fds(), rss_kib(self.process.pid))

    def fds(self):
        """Of the supervisor, without the two for the monitor of a card, which comes and goes."""
        return fds_of(self.process.pid) - (2 if self.child('rocmforge-probe') else 0)

    def __exit__(self, kind, value, trace):
        try:
            if kind is None and self.before and self.process.poll() is None:
                self.check_invariants()
        finally:
            super().__exit__(kind, value, trace)
            os.unlink(self.log.name)
            subprocess.run(['rm', '-rf', f'/tmp/rocmforge-faults-{self.mark}.state'], check=False)
        if kind is None:
            self.check_gone()

    # ---- what holds after every row ----

    def check_invariants(self):
        end = time.monotonic() + 60
        while self.get('/ready')[0] != 200:
            check(time.monotonic() < end, 'after the row the server is not ready')
            time.sleep(0.01)
        while self.metric('requests_live') != 0 or self.fds() > self.before[0]:
            check(time.monotonic() < end,
                  f'{self.metric("requests_live")} requests are left, descriptors '
                  f'{self.before[0]} -> {self.fds()}')
            time.sleep(0.02)
        grown = rss_kib(self.process.pid) - self.before[1]
        check(grown < SUPERVISOR_GROWTH_KIB, f'the supervisor grew by {grown} KiB')
        begun, ended, failed, left = (self.metric(k) for k in (
            'generations_total', 'time_per_output_token_seconds_count', 'generations_failed_total',
            'generations_cancelled_total'))
        check(begun >= failed + left, f'{begun} begun, {failed} failed, {left} cancelled')

    def check_gone(self):
        end = time.monotonic() + 30
        while True:
            left = [p for p in os.listdir('/proc') if p.isdigit() and self.is_ours(p)]
            if not left:
                break
            check(time.monotonic() < end, f'processes are left: {left}')
            time.sleep(0.02)
        for path in glob.glob('/run/lock/rocmforge-*.lock'):
            with open(path) as f:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_ours(self, pid):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as f:
                return f'{MARK}={self.mark}'.encode() in f.read().split(b'\0')
        except OSError:
            return False

    # ---- looking ----

    def health(self):
        return json.loads(self.get('/health')[1])['worker']

    def metric(self, name):
        text = self.get('/metrics')[1].decode()
        m = re.search(rf'^rocmforge_{name} (\S+)$', text, re.M)
        check(m, f'no metric {name}')
        return float(m.group(1))

    def worker(self):
        return self.child('rocmforge-worker')

    def gateway(self):
        return self.child('rocmforge-gateway')

    def wait_log(self, pattern, seconds=90):
        end = time.monotonic() + seconds
        while True:
            m = re.search(pattern, self.log_text())
            if m:
                return m
            check(time.monotonic() < end, f'not in the log within {seconds} s: {pattern}')
            time.sleep(0.005)

    def wait_ok(self, seconds=120):
        """Until a request would be served."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.get('/ready')[0] == 200:
                    return
            except OSError:
                pass
            check(time.monotonic() < end, f'not ready within {seconds} s')
            time.sleep(0.002)

    def wait_new_worker(self, old, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid = self.worker()
            if pid and pid != old:
                return pid
            time.sleep(0.0005)
        check(False, 'no new worker')

    def catch(self, phase, stream=None, seconds=60):
        """Stops the worker in this phase and returns its pid, or None when the stream is over. It is
        stopped and looked at every fraction of a millisecond of its running time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if stream and not stream.is_alive():
                return None
            pid = self.worker()
            try:
                os.kill(pid or 0x7ffffff, signal.SIGSTOP)
                if self.health().get('phase') == phase and self.worker() == pid:
                    return pid
                os.kill(pid, signal.SIGCONT)
            except (ProcessLookupError, ConnectionError):
                continue
            time.sleep(random.uniform(0, 0.001))
        check(False, f'the worker was never seen in phase {phase}')

    def child(self, name):
        """pid of the running child program; without starting one, which takes too long."""
        try:
            with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children') as f:
                pids = f.read().split()
        except OSError:
            return None
        for pid in pids:
            try:
                with open(f'/proc/{pid}/cmdline') as f, open(f'/proc/{pid}/stat') as st:
                    words = f.read().split('\0')
                    is_dead = st.read().rsplit(')', 1)[1].split()[0] in 'ZX'
            except OSError:
                continue
            if not is_dead and any(w.endswith(name) for w in words[:2]):
                return int(pid)
        return None

    # ---- asking ----

    def ask(self, text, **more):
        status, r = self.post('/v1/chat/completions', chat(text, **more))
        check_equal(status, 200, f'{text}: {r}')
        return r['choices'][0]['message']['content']


class Stream(threading.Thread):
    """One streamed request; what came and when. A stream ends once: with [DONE], with one error, or
    cut by the connection."""

    def __init__(self, rig, body=STORY, path='/v1/chat/completions'):
        super().__init__(daemon=True)
        self.rig, self.body, self.path = rig, body, path
        self.times, self.text, self.ends, self.error = [], '', [], None
        self.reason, self.status, self.cut = None, None, None
        self.start()

    def run(self):
        try:
            c = self.rig.connect()
            c.request('POST', self.path, json.dumps({**self.body, 'stream': True}),
                      {'Content-Type': 'application/json'})
            r = c.getresponse()
            self.status = r.status
            if r.status != 200:
                self.error = json.loads(r.read())['error']
                self.ends.append('status')
                return
            for line in r:
                line = line.decode()
                if line.startswith('data: '):
                    self.take(line[6:].strip())
            if not self.ends:
                self.cut = 'the connection ended'
        except (OSError, ValueError, AttributeError) as e:
            self.cut = repr(e)
        except Exception as e:  # http.client's own
            self.cut = repr(e)

    def take(self, data):
        self.times.append(time.monotonic())
        if data == '[DONE]':
            self.ends.append('done')
            return
        event = json.loads(data)
        if 'error' in event:
            self.ends.append('error')
            self.error = event['error']
            return
        for choice in event['choices']:
            if choice['index'] == 0:
                self.text += choice.get('delta', {}).get('content') or choice.get('text') or ''
                self.reason = choice.get('finish_reason') or self.reason

    def seen(self, n, seconds=90):
        """Until n events have come."""
        end = time.monotonic() + seconds
        while len(self.times) < n and self.is_alive():
            check(time.monotonic() < end, f'{len(self.times)} of {n} events within {seconds} s')
            time.sleep(0.001)
        return self

    def end(self, seconds=180):
        self.join(seconds)
        check(not self.is_alive(), f'a stream does not end within {seconds} s')
        check(len(self.ends) <= 1, f'a stream ended {len(self.ends)} times: {self.ends}')
        return self

    def resumed(self, since):
        """Seconds from the moment to the end of the silence it caused."""
        marks = [t for t in self.times if t <= since][-1:] + [t for t in self.times if t > since]
        check(len(marks) > 1, 'nothing came afterwards')
        _, end = max((b - a, b) for a, b in zip(marks, marks[1:]) if a < since + 0.01)
        return end - since

    def silence(self, since):
        """Seconds of the longest silence that ended after the moment: of a fault that strikes some time later."""
        gaps = [b - a for a, b in zip(self.times, self.times[1:]) if b > since]
        check(gaps, 'nothing came afterwards')
        return max(gaps)


def go_on(pid):
    """SIGCONT to one that was stopped, and may be dead by now."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


def expect_whole(stream, text):
    stream.end()
    check_equal((stream.ends, stream.error, stream.cut), (['done'], None, None), 'the end')
    check_equal(stream.text, text, 'the answer')


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))]
