"""A worker that dies again and again, as soon as it is ready, for as long as it takes: nothing may leak.
Kills in turn by SIGKILL (somebody else's) and, every --own, by SIGSEGV (its own fault), on a small model.
Every thousand deaths it asks the server a question, whose answer must be the same, and notes descriptors,
memory, shared memory (memfds) and processes of supervisor and gateway.

    deaths.py BIN [--deaths N] [--model NAME=PATH] [--own N]
"""
import argparse
import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'e2e'))
from server import Server, chat, check, check_equal, fds_of, rss_kib  # noqa: E402


def memfds_of(pid):
    n = 0
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            n += 'memfd:' in os.readlink(f'/proc/{pid}/fd/{fd}')
        except OSError:
            pass
    return n


def shared_kib():
    """Shared memory of the whole machine."""
    with open('/proc/meminfo') as f:
        return int(re.search(r'Shmem:\s+(\d+)', f.read()).group(1))


def worker_of(pid, known):
    """The pid of a worker that is not the known one; None: not there yet."""
    for child in open(f'/proc/{pid}/task/{pid}/children').read().split():
        try:
            if child != known and 'worker' in open(f'/proc/{child}/comm').read():
                return child
        except OSError:
            pass
    return None


class Log:
    """Follows the server's log and forgets it: a hundred thousand deaths write a lot."""

    def __init__(self, path):
        self.file = open(path, 'rb')
        self.path, self.rest, self.forgotten = path, b'', 0

    def ready_pid(self, seconds):
        """The pid of the next worker that says it is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            part = self.rest + self.file.read()
            m = re.search(rb'worker is ready: epoch \d+, pid (\d+)', part)
            if m:
                self.rest = part[m.end():]
                if self.file.tell() > self.forgotten + (16 << 20):
                    os.truncate(self.path, 0)  # who writes it goes on where it was, behind a hole
                    self.forgotten = self.file.tell()
                return int(m.group(1))
            self.rest = part[-200:]
            time.sleep(0.001)
        raise AssertionError('no new worker')


def sample(server):
    server.settle()
    pids = {'supervisor': server.process.pid, 'gateway': server.child('rocmforge-gateway')}
    return {n: {'fds': fds_of(p), 'memfds': memfds_of(p), 'RSS KiB': rss_kib(p)}
            for n, p in pids.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('bin')
    parser.add_argument('--deaths', type=int, default=300)
    parser.add_argument('--own', type=int)
    parser.add_argument('--model')
    args = parser.parse_args()
    # Few of its own: the restart policy rightly waits longer after each.
    own_every = args.own or max(100, args.deaths // 8)
    question = chat('What is 17 + 25?', max_tokens=16)
    # The ring of crash reports and the log are part of what must not grow.
    with Server(args.bin, '--ctx-size', '256', '--crash-reports', '3', '--kv-memory', '4',
                models=[args.model] if args.model else None) as server:
        answer = server.post('/v1/chat/completions', question)[1]['choices']
        log = Log(server.log.name)
        pid = log.ready_pid(20)
        start, times, first, shared = time.monotonic(), [], None, None
        for i in range(1, args.deaths + 1):
            own = i % own_every == 0
            t = time.monotonic()
            os.kill(pid, signal.SIGSEGV if own else signal.SIGKILL)
            pid = log.ready_pid(120)
            times.append(time.monotonic() - t)
            if i == min(1000, args.deaths // 2) or i % 1000 == 0 or i == args.deaths:
                while server.get('/ready')[0] != 200:
                    time.sleep(0.01)
                check_equal(server.post('/v1/chat/completions', question)[1]['choices'], answer,
                            f'the answer after {i} deaths')
                now = sample(server)
                if first is None:
                    first, shared = now, shared_kib()
                times.sort()
                print(f'{i} deaths in {time.monotonic() - start:.0f} s, to ready p50 '
                      f'{times[len(times) // 2] * 1000:.1f} ms p99 '
                      f'{times[len(times) * 99 // 100] * 1000:.1f} ms; {now}; machine shared memory '
                      f'{shared_kib() - shared:+d} KiB', flush=True)
                times = []
                for name, was in first.items():
                    check(now[name]['fds'] <= was['fds'] and now[name]['memfds'] <= was['memfds'],
                          f'{name} leaks descriptors: {was} -> {now[name]}')
                    check(now[name]['RSS KiB'] <= was['RSS KiB'] + 1024, f'{name} grows: {was} -> '
                          f'{now[name]}')
        metrics = server.get('/metrics')[1].decode()
        n = sum(int(x) for x in re.findall(r'^rocmforge_worker_deaths_(?:own_fault|external) (\d+)',
                                           metrics, re.M))
        check_equal(n, args.deaths, 'deaths counted')
        kept = len(os.listdir(os.path.join(server.state, 'crashes')))
        check(kept <= 4, f'{kept} crash reports are kept')
    print('ok')


main()
