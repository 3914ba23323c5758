"""Rows about the worker: killed, crashed, hung, slow, poisoned, out of memory."""
import functools
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from matrix import row, tested
from rig import (STORY, Rig, Stream, check, check_equal, expect_whole, go_on, percentile)

PAUSE = 'the worker is killed, crashes or hangs'


def story_of(s):
    return Stream(s).end().text


@row('1', 'worker killed between two tokens', 'SIGKILL at a random token, 12 times', 0.150,
     promise=PAUSE)
def killed_decoding(bin_dir):
    with Rig(bin_dir) as s:
        whole, times = story_of(s), []
        for _ in range(12):
            stream = Stream(s).seen(random.randrange(2, 120))
            at = time.monotonic()
            os.kill(s.worker(), signal.SIGKILL)
            expect_whole(stream, whole)
            times.append(stream.resumed(at))
            s.wait_ok()
        return percentile(times, 0.99), f'median {statistics.median(times) * 1000:.0f} ms'


def long_prompt(s, **more):
    """900 tokens that no earlier prompt began with, so that they are computed."""
    ids = s.post('/tokenize', {'content': 'Tell me a story about a brave mouse. ' * 60})[1]['tokens']
    ids = [random.choice(ids)] + ids[:899]
    return {'prompt': ids, 'max_tokens': 40, 'temperature': 0, 'ignore_eos': True, **more}


def in_phase(s, phase, sig):
    """The signal in this phase while one request is there or comes; how long it took to go on."""
    pid, stream = None, None
    while not pid:  # a request may be through before its phase is seen
        stream = Stream(s).seen(3) if phase == 'decode' else None
        if phase == 'prefill':
            stream = Stream(s, long_prompt(s), '/v1/completions')
        pid = s.catch(phase, stream)
    at = time.monotonic()
    os.kill(pid, sig)
    go_on(pid)
    if phase == 'idle':
        check('42' in s.ask('What is 17 + 25?'), 'the next answer')
        return time.monotonic() - at
    stream.end()
    check_equal((stream.ends, stream.error), (['done'], None), f'{phase}: the end')
    return min(t for t in stream.times if t > at) - at if phase == 'prefill' else stream.resumed(at)


def phases(bin_dir, phase, signals):
    with Rig(bin_dir, '--chunk-size', '16') as s:
        times = []
        for sig in signals:
            old = s.worker()
            times.append(in_phase(s, phase, sig))
            s.wait_ok()
            check(s.worker() != old, 'a new worker')
            time.sleep(0.3 if sig != signal.SIGKILL else 0)  # not a crash loop
            s.ask('What is 17 + 25?')
        return max(times)


@row('2', 'worker killed while it reads the prompt', 'SIGKILL in phase prefill, 4 times', 0.200)
def killed_prefill(bin_dir):
    return phases(bin_dir, 'prefill', [signal.SIGKILL] * 4)


@row('3', 'worker killed while nothing is asked', 'SIGKILL in phase idle, 4 times', 0.150)
def killed_idle(bin_dir):
    return phases(bin_dir, 'idle', [signal.SIGKILL] * 4)


@row('4', 'worker killed while it loads', 'SIGKILL within 5 ms of each of 20 starts', 0.300)
def killed_loading(bin_dir):
    with Rig(bin_dir) as s:
        for _ in range(20):
            old = s.worker()
            os.kill(old, signal.SIGKILL)
            s.wait_new_worker(old)
            time.sleep(random.uniform(0, 0.005))
        os.kill(s.worker(), signal.SIGKILL)
        at = time.monotonic()
        check('42' in s.ask('What is 17 + 25?'), 'the next answer')
        took, log = time.monotonic() - at, s.log_text()
        return took, ', '.join(f'{log.count(", " + p + ",")} {p}' for p in ('starting', 'loading'))


CRASHES = [signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT]


@row('5', 'worker crashes in decode', 'SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT', 0.400)
def crashed_decoding(bin_dir):
    return phases(bin_dir, 'decode', CRASHES)


@row('5a', 'worker crashes in prefill', 'the same signals', 0.400)
def crashed_prefill(bin_dir):
    return phases(bin_dir, 'prefill', CRASHES)


@row('5b', 'worker crashes while idle', 'the same signals', 0.400)
def crashed_idle(bin_dir):
    return phases(bin_dir, 'idle', CRASHES)


@row('5c', 'worker crashes while the server drains', 'SIGSEGV after SIGTERM to the server', 5)
def crashed_draining(bin_dir):
    with Rig(bin_dir) as s:
        stream = Stream(s).seen(3)
        worker = s.worker()
        s.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGSEGV)
        at = time.monotonic()
        stream.end()
        check(stream.ends == ['error'], f'a typed error: {stream.ends} {stream.cut}')
        check_equal(s.process.wait(60), 0, 'exit code')
        return time.monotonic() - at


@row('12', 'worker slow, ten times, but not hung', 'SIGSTOP for 9 of every 10 ms, for 4 s')
def slow_worker(bin_dir):
    with Rig(bin_dir) as s:
        whole, worker = story_of(s), s.worker()
        stream, end = Stream(s), time.monotonic() + 4
        while time.monotonic() < end:
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.009)
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.001)
        expect_whole(stream, whole)
        check_equal(s.worker(), worker, 'the same worker')


@row('13', 'worker hangs in decode', 'SIGSTOP, 8 streams', 3.5, promise=PAUSE)
def hung_decoding(bin_dir):
    with Rig(bin_dir) as s:
        whole = story_of(s)
        streams = [Stream(s) for _ in range(8)]
        streams[-1].seen(2)
        os.kill(s.worker(), signal.SIGSTOP)
        time.sleep(0.1)  # what was on its way has come
        at = time.monotonic()
        cut = [stream for stream in streams if not stream.ends]
        for stream in streams:
            expect_whole(stream, whole)
        check(cut, 'all answers were whole before the worker stood still')
        return 0.1 + max(stream.resumed(at) for stream in cut)


@row('13a', 'worker hangs while it reads the prompt', 'SIGSTOP in phase prefill', 3.5)
def hung_prefill(bin_dir):
    with Rig(bin_dir, '--chunk-size', '16') as s:
        stream = Stream(s, long_prompt(s), '/v1/completions')
        check(s.catch('prefill', stream), 'it was too fast')
        at = time.monotonic()
        stream.end(120)
        check_equal(stream.ends, ['done'], 'the end')
        return min(t for t in stream.times if t > at) - at


@row('13b', 'worker hangs idle; then something is asked', 'SIGSTOP in phase idle', 3.5)
def hung_idle(bin_dir):
    with Rig(bin_dir) as s:
        s.catch('idle')
        at = time.monotonic()
        check('42' in s.ask('What is 17 + 25?'), 'the answer')
        return time.monotonic() - at


@row('13c', 'is the hang told?', 'SIGSTOP in decode; /ready must say 503', 2.5)
def hang_is_told(bin_dir):
    with Rig(bin_dir) as s:
        stream = Stream(s).seen(2)
        at = time.monotonic()
        os.kill(s.worker(), signal.SIGSTOP)
        while s.get('/ready')[0] == 200:
            check(time.monotonic() - at < 10, '/ready says 200 of a hung worker')
            time.sleep(0.01)
        told = time.monotonic() - at
        stream.end(90)
        return told


@row('14', 'worker does not hear SIGTERM', 'SIGSTOP, server told to end twice', 0.5)
def deaf_worker(bin_dir):
    with Rig(bin_dir) as s:
        os.kill(s.worker(), signal.SIGSTOP)
        s.process.send_signal(signal.SIGTERM)
        s.wait_log('stopping: ')
        at = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        s.process.wait(60)
        return time.monotonic() - at


@row('29', 'worker crashes at every start', 'every worker after the first kills itself', 8)
def crash_loop(bin_dir):
    with tempfile_programs(bin_dir, '[ "$2" = 1 ] && exec "$real" "$@"; kill -SEGV $$') as libexec, \
            Rig(bin_dir, '--resume-timeout', '1', libexec=libexec) as s:
        s.before = None  # it stays down
        os.kill(s.worker(), signal.SIGSEGV)
        at = time.monotonic()
        s.wait_log(r'its own fault; started again in [1-9]', 20)
        settled = time.monotonic() - at
        stat = f'/proc/{s.process.pid}/stat'
        ticks = sum(map(int, open(stat).read().rsplit(')', 1)[1].split()[11:15]))
        time.sleep(2)
        spent = sum(map(int, open(stat).read().rsplit(')', 1)[1].split()[11:15])) - ticks
        check(spent <= 4, f'{spent} clock ticks of 200 while it backs off')
        at = time.monotonic()
        status, r = s.post('/v1/chat/completions', STORY)
        check_equal((status, r['error']['code']), (503, 'worker_down'), 'while it is down')
        return settled


@row('30', 'a request kills every worker it meets', 'SIGSEGV in its prefill, twice', 2,
     promise='a request brings the worker down, and alone brings the next one down at the same place')
def poison(bin_dir):
    with tempfile.TemporaryDirectory() as folder, \
            Rig(bin_dir, '--chunk-size', '16', '--unix', folder + '/socket') as s:
        ask = functools.partial(poison_command, bin_dir, '--unix', folder + '/socket')
        for _ in range(10):  # one whose token came just before is rightly acquitted
            bad, at, worker = long_prompt(s), time.monotonic(), True
            stream = Stream(s, bad, '/v1/completions')
            while worker:
                worker = s.catch('prefill', stream)
                if worker:
                    at = time.monotonic()
                    die(worker)
            stream.end()
            took = time.monotonic() - at
            if stream.error:
                break
        check_equal(stream.error and stream.error['code'], 'poison_request', 'the error')
        s.wait_ok()
        status, r = s.post('/v1/completions', {**bad, 'stream': True})
        check_equal((status, r['error']['code']), (500, 'poison_request'), 'sent again')
        check('42' in s.ask('What is 17 + 25?'), 'others')
        told, table = json.loads(ask('--json')), ask().splitlines()
        check_equal((len(told['poison']), told['poison'][0]['refused']), (1, 1), 'the list')
        check_equal(table[0], f'1 refused, {told["suspects"]} suspected', 'the table')
        check_equal(len(table), 3, 'one row')
        date = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'
        check(re.fullmatch(f'{told["poison"][0]["sha256"]}  {date}  {date}  1', table[2]), table[2])
        check_equal(len(ask('--clear').splitlines()), 1, 'cleared')
        check_equal(json.loads(ask('--json'))['poison'], [], 'the list is empty')
        check_equal(s.post('/v1/completions', {**bad, 'max_tokens': 1})[0], 200, 'served again')
        return took


def poison_command(bin_dir, *args):
    """What `rocmforge poison` prints."""
    return subprocess.run([os.path.join(bin_dir, 'rocmforge'), 'poison', *args], check=True,
                          stdout=subprocess.PIPE, text=True, timeout=30).stdout


def die(stopped):
    os.kill(stopped, signal.SIGSEGV)
    go_on(stopped)


@row('31', 'the same among eight others', 'SIGSEGV, and again when it is tried alone', 4)
def poison_among_eight(bin_dir):
    with Rig(bin_dir, '--chunk-size', '16') as s:
        whole = story_of(s)
        for _ in range(10):
            others = [Stream(s).seen(1) for _ in range(8)]
            bad = Stream(s, long_prompt(s), '/v1/completions')
            at, worker = time.monotonic(), s.catch('prefill', bad)
            if worker:
                die(worker)
            while worker:  # suspects are tried in the order in which they came
                worker = s.catch('prefill', bad)
                if worker and s.metric('requests_suspect') == 1:
                    die(worker)
                    bad.join(0.1)
                elif worker:
                    go_on(worker)
            took = time.monotonic() - at
            for other in others:
                expect_whole(other, whole)
            if bad.end().error:
                break
        check_equal(bad.error and bad.error['code'], 'poison_request', 'the guilty one')
        return took


@row('A1', 'no worker comes back', 'the program is gone, then SIGKILL; resume_timeout 1 s', 2.5,
     promise='the worker does not come back within `resume_timeout`')
def nobody_comes(bin_dir):
    with tempfile_programs(bin_dir) as libexec, \
            Rig(bin_dir, '--resume-timeout', '1', libexec=libexec) as s:
        stream = Stream(s).seen(3)
        program = os.path.join(libexec, 'rocmforge-worker')
        os.rename(program, program + '.away')
        at = time.monotonic()
        os.kill(s.worker(), signal.SIGKILL)
        stream.end()
        took = stream.times[-1] - at
        check_equal((stream.ends, stream.error['code']), (['error'], 'worker_down'), 'the end')
        status, r = s.post('/v1/chat/completions', STORY)
        check_equal((status, r['error']['code']), (503, 'worker_down'), 'while it is down')
        os.rename(program + '.away', program)
        s.process.send_signal(signal.SIGHUP)
        s.wait_ok()
        check('42' in s.ask('What is 17 + 25?'), 'afterwards')
        return took


@row('64', 'the worker cannot be started', 'its program is renamed for 3 s', 6)
def no_program(bin_dir):
    with tempfile_programs(bin_dir) as libexec, Rig(bin_dir, libexec=libexec) as s:
        whole = story_of(s)
        stream = Stream(s).seen(3)
        program = os.path.join(libexec, 'rocmforge-worker')
        os.rename(program, program + '.away')
        at = time.monotonic()
        os.kill(s.worker(), signal.SIGKILL)
        time.sleep(3)
        check_equal(s.get('/ready')[0], 503, '/ready')
        os.rename(program + '.away', program)
        expect_whole(stream, whole)
        return stream.resumed(at)


class tempfile_programs:
    """A folder of our programs in which the worker is a script that becomes the real one, after the
    given lines."""

    def __init__(self, bin_dir, lines=''):
        import tempfile
        self.dir = tempfile.mkdtemp(prefix='rocmforge-faults-')
        for name in ('gateway', 'probe'):
            os.symlink(os.path.abspath(f'{bin_dir}/rocmforge-{name}'),
                       f'{self.dir}/rocmforge-{name}')
        path = f'{self.dir}/rocmforge-worker'
        with open(path, 'w') as f:
            f.write(f'#!/bin/sh\nreal={os.path.abspath(bin_dir)}/rocmforge-worker\n{lines}\n'
                    'exec "$real" "$@"\n')
        os.chmod(path, 0o755)

    def __enter__(self):
        return self.dir

    def __exit__(self, kind, value, trace):
        import shutil
        shutil.rmtree(self.dir, ignore_errors=True)


@row('65', 'the machine sleeps and wakes', 'SIGSTOP of all processes for 11 s', 2)
def everybody_sleeps(bin_dir):
    with Rig(bin_dir) as s:
        whole = story_of(s)
        fresh = socket.create_connection(('127.0.0.1', s.port), 30)
        check_equal(s.get('/health')[0], 200, 'the gateway took it; 10 s for its headers begin')
        stream = Stream(s).seen(3)
        everybody = [s.process.pid, s.gateway(), s.worker()]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        fresh.sendall(b'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        time.sleep(11)
        for pid in reversed(everybody):
            os.kill(pid, signal.SIGCONT)
        at = time.monotonic()
        expect_whole(stream, whole)
        check(fresh.recv(100).startswith(b'HTTP/1.1 200 '), 'what was sent meanwhile is answered')
        fresh.close()
        check_equal([s.process.pid, s.gateway(), s.worker()], everybody, 'nobody was killed')
        return stream.resumed(at)


tested('72', 'a worker that answers otherwise after a restart', 'a fake worker sends other ids', None,
       'gateway/resume_test')
