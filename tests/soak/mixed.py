"""Mixed load for hours: streams, prompts of many lengths, shared prefixes, forks, clients that leave,
bursts beyond the KV cache, several models of which one comes and goes. Open loop at a moderate rate, so
that it runs beside other work. One report an interval; fails on errors, leaks, drift and accounts that
do not balance.

    mixed.py BIN [--seconds N] [--interval N] [--rate X]

BIN: folder of the programs. Drift compares the best interval of the last quarter
with the best of the first, because other work on the machine only ever adds.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'e2e'))
from server import DEMO, Server, check, check_equal, fds_of, rss_kib  # noqa: E402

# What each kind of client does. Lengths in tokens, rates in requests a second.
CLIENTS = {
    'talk': '--model a --rate 1.2 --clients 64 --prompt 100-300 --generate 16-64 --prefix 64-96 --groups 8',
    'long': '--model a --rate 0.15 --clients 32 --prompt 400-900 --generate 16-96 --prefix 350 --groups 4',
    'leave': '--model a --rate 0.4 --clients 64 --prompt 16-200 --generate 64-128 --leave 0.8',
    'fork': '--model b --rate 0.25 --clients 32 --prompt 40-200 --generate 16-48 --choices 4',
    'best': '--model b --rate 0.15 --clients 32 --prompt 40-100 --generate 16-32 --best-of 3',
    'burst': '--model b --rate 0.8 --burst 48 --clients 96 --prompt 32-160 --generate 64-200',
    'guest': '--model c --rate 0.05 --clients 32 --prompt 32-64 --generate 16-32',
}
# KV: 6 MiB are 127 blocks, of which a request of 'long' takes up to 63: sequences are put back and the
# prefix cache is always full. The guest's model is gone 5 s after its last request.
SERVER = ['--max-models', '3', '--parallel', '16', '--kv-memory', '6', '--model-idle', '5',
          '--ctx-size', '1024']
# Last quarter against first: medians, p99s (few values an interval), work per token.
MEDIAN_FACTOR, P99_FACTOR, WORK_FACTOR, SLACK_MS = 1.3, 2.0, 1.3, 2.0
GROWTH_KIB, GROWTH_SHARE = 2048, 0.02


def cpu_seconds(pid):
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def metrics(s):
    """Of metrics without labels the value; of labelled ones the sum."""
    out = {}
    for line in s.get('/metrics')[1].decode().splitlines():
        m = re.match(r'rocmforge_(\w+)(?:{[^}]*})? ([0-9.e+-]+)$', line)
        if m:
            out[m[1]] = out.get(m[1], 0) + float(m[2])
    return out


def start_load(name, port, args):
    options = CLIENTS[name].split()
    at = options.index('--rate') + 1
    options[at] = str(float(options[at]) * args.rate)
    return subprocess.Popen([os.path.join(args.bin, 'rocmforge'), 'bench', '--server',
                             f'http://127.0.0.1:{port}', '--seconds', str(args.seconds), '--interval',
                             str(args.interval), '--json', '--quiet', '--seed',
                             str(1 + list(CLIENTS).index(name))] + options,
                            stdout=subprocess.PIPE, text=True)


class Watch:
    """The server's processes: memory, descriptors, time computed since the last look."""

    def __init__(self, s, loads):
        self.pids = {n: s.child('rocmforge-' + n) for n in ('gateway', 'worker')}
        self.pids['supervisor'] = s.process.pid
        self.loads = [p.pid for p in loads]
        self.before = self.cpu()

    def cpu(self):
        now = {n: cpu_seconds(p) for n, p in self.pids.items()}
        now['load'] = sum(cpu_seconds(p) for p in self.loads if os.path.exists(f'/proc/{p}/stat'))
        return now

    def look(self):
        now = self.cpu()
        used = {n: now[n] - self.before[n] for n in now}
        self.before = now
        return {'cpu': used, 'rss': {n: rss_kib(p) for n, p in self.pids.items()},
                'fds': {n: fds_of(p) for n, p in self.pids.items()}}


def show(number, lines, watch, seconds):
    print(f'-- interval {number}: {seconds:.0f} s, '
          f'{sum(l["tokens"] + l["left_tokens"] for l in lines.values()) / seconds:.1f} tokens/s out, '
          f'{sum(l["prompt_tokens"] for l in lines.values()) / seconds:.1f} in, '
          f'{sum(watch["cpu"].values()) / seconds * 100:.1f} % of a core')
    for name, l in lines.items():
        first, between = ([f'{v:8.2f}' for v in l[t]] if l[t] else ['       -'] * 3
                          for t in ('first_token_ms', 'between_tokens_ms'))
        print(f'   {name:6} started {l["started"]:5} finished {l["requests"]:5} left {l["left"]:4} '
              f'refused {l["refused"]:3} failed {l["failed"]:2}  first ms p50{first[0]} p99{first[2]}'
              f'  between ms p50{between[0]} p99{between[2]}' +
              (f'  ({l["stalls"]} stalls)' if l['stalls'] else ''))
    for what, of in (('RSS KiB', 'rss'), ('fds', 'fds')):
        print(f'   {what:8}' + ', '.join(f'{n} {v}' for n, v in watch[of].items()))
    print('   CPU s   ' + ', '.join(f'{n} {v:.2f}' for n, v in watch['cpu'].items()), flush=True)


def quarters(intervals):
    n = max(len(intervals) // 4, 1)
    return intervals[:n], intervals[-n:]


def check_drift(intervals):
    early, late = quarters(intervals)
    bad = []

    def compare(what, values, factor, slack):
        a, b = (min([v for v in map(values, q) if v is not None], default=None)
                for q in (early, late))
        if a is None or b is None:
            return
        verdict = 'DRIFT' if b > a * factor + slack else 'ok'
        print(f'   {what:28} {a:9.3f} -> {b:9.3f}  (allowed: x {factor} + {slack}) {verdict}')
        if verdict != 'ok':
            bad.append(what)

    for name in CLIENTS:
        for t in ('first_token_ms', 'between_tokens_ms'):
            for p, at, factor in (('p50', 0, MEDIAN_FACTOR), ('p99', 2, P99_FACTOR)):
                compare(f'{name} {t} {p}', lambda i: i[0][name][t] and i[0][name][t][at], factor,
                        SLACK_MS)

    def work(of):
        def per_token(i):
            n = sum(l['tokens'] + l['left_tokens'] for l in i[0].values())
            return i[1]['cpu'][of] / n * 1000 if n else None
        return per_token

    for of in ('worker', 'gateway'):
        compare(f'{of} CPU ms per token', work(of), WORK_FACTOR, 0.02)
    return bad


def check_growth(intervals):
    early, late = quarters(intervals)
    bad = []
    for n in early[0][1]['rss']:
        a, b = (max(i[1]['rss'][n] for i in q) for q in (early, late))
        fds = [max(i[1]['fds'][n] for i in q) for q in (early, late)]
        print(f'   {n:12} RSS {a} -> {b} KiB (allowed: + {GROWTH_SHARE:.0%} + {GROWTH_KIB}), most '
              f'descriptors {fds[0]} -> {fds[1]}')
        if b > a * (1 + GROWTH_SHARE) + GROWTH_KIB:
            bad.append(f'{n} grows')
    return bad


def check_accounts(before, after, totals, intervals):
    """What the clients counted against what the server counted."""
    bad = []

    def same(what, got, low, high=None):
        high = low if high is None else high
        print(f'   {what}: {got:.0f}, expected {low}' + (f' to {high}' if high != low else ''))
        if not low <= got <= high:
            bad.append(what)

    def total(of):
        return sum(t[of] for t in totals.values())

    def since(name):
        return after[name] - before[name]

    for name, t in totals.items():
        same(f'{name}: started', t['started'],
             t['requests'] + t['left'] + t['refused'] + t['failed'])
        for of in ('started', 'requests', 'left', 'refused', 'failed'):
            if sum(i[0][name][of] for i in intervals if name in i[0]) != t[of]:
                bad.append(f'{name}: intervals of {of}')
    same('failed', total('failed'), 0)
    same('generations', since('generations_total'), total('started') - total('refused'))
    same('generations failed', since('generations_failed_total'), 0)
    # Who leaves at the end of the answer leaves one that is complete.
    same('generations cancelled', since('generations_cancelled_total'), 0, total('left'))
    same('prompt tokens', since('prompt_tokens_total'), total('prompt_tokens'),
         total('prompt_tokens') + total('left') * 200)
    same('tokens', since('completion_tokens_total'), total('tokens'),
         total('tokens') + total('left') * 128)
    same('workers started', since('worker_starts_total'), 0)
    for name in ('requests_live', 'requests_held', 'worker_sequences_active',
                 'worker_requests_queued', 'kv_blocks_used', 'request_body_bytes'):
        same(name, after[name], 0)
    return bad


def settle(s, seconds=30):
    end = time.monotonic() + seconds
    while True:
        m = metrics(s)
        if (m['requests_live'] == 0 and m['kv_blocks_used'] == 0) or time.monotonic() > end:
            return m
        time.sleep(0.1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('bin')
    parser.add_argument('--seconds', type=int, default=int(os.environ.get('ROCMFORGE_SOAK_SECONDS',
                                                                          7200)))
    parser.add_argument('--interval', type=int, default=300)
    parser.add_argument('--rate', type=float, default=1, help='factor on all rates')
    args = parser.parse_args()
    models = [f'{name}={DEMO}' for name in 'abc']
    with Server(args.bin, *SERVER, models=models) as s:
        for name in 'abc':
            check_equal(s.post('/v1/completions', {'model': name, 'prompt': 'x', 'max_tokens': 1})[0],
                        200, 'warm-up')
        before = settle(s)
        loads = {n: start_load(n, s.port, args) for n in CLIENTS}
        watch = Watch(s, loads.values())
        fds_before = watch.look()['fds']
        intervals, totals, last = [], {}, time.monotonic()
        while len(totals) < len(loads):
            lines = {n: json.loads(loads[n].stdout.readline()) for n in loads if n not in totals}
            totals.update((n, l) for n, l in lines.items() if l['span'] == 'run')
            lines = {n: l for n, l in lines.items() if l['span'] != 'run'}
            if lines:
                now = time.monotonic()
                intervals.append((lines, watch.look()))
                show(len(intervals), *intervals[-1], now - last)
                last = now
        for p in loads.values():
            p.wait()
        after = settle(s)
        time.sleep(0.5)
        fds_after = watch.look()['fds']
        worker = s.child('rocmforge-worker')
        print('-- accounts')
        bad = check_accounts(before, after, totals, intervals)
        print(f'   preempted {after["worker_preemptions"]:.0f}, evicted blocks '
              f'{after["kv_blocks_evicted"]:.0f}, prompt tokens cached '
              f'{after["prompt_tokens_cached_total"] / max(after["prompt_tokens_total"], 1):.0%}')
        for n in fds_before:
            if fds_after[n] > fds_before[n]:
                bad.append(f'{n} leaks descriptors: {fds_before[n]} -> {fds_after[n]}')
        # Whole ones: what was running when the time was up measures nothing.
        whole = [i for i in intervals if len(i[0]) == len(loads)][:args.seconds // args.interval]
        if len(whole) >= 8 and args.interval % 60 == 0:  # a burst a minute: others are not alike
            print('-- growth, first quarter to last')
            bad += check_growth(whole)
            print('-- drift, best of the first quarter to best of the last')
            bad += check_drift(whole)
        check(worker == watch.pids['worker'], 'the worker lived')
        check(not bad, '; '.join(bad))
    print('ok')


main()
