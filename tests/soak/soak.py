"""The worker is killed at random moments while eight clients are being answered, greedy and seeded,
streamed and plain; every answer must equal the undisturbed one byte for byte (without id, created,
timings and comment lines). Nothing is lost, nothing comes twice, nothing leaks. Prints the time from
a kill to the next token.

    soak.py BIN [--kills N] [--seed N] [--clients N] [--model NAME=PATH] [--tokens N] [--device gpu]

With --device gpu on a made-up card whose kernels the emulator computes (tests/e2e/machine.py): slower, so prompts
are short and kills come by tokens, not by the clock.

With --context N instead: one stream behind a prompt of N tokens, killed again and again; for a model
whose answer nobody can foretell the text is compared with that of the same request undisturbed.

    soak.py BIN --context 4000 --model NAME=PATH [--kills N]
"""
import argparse
import bisect
import json
import math
import os
import random
import re
import selectors
import signal
import socket
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'e2e'))
from machine import Machine  # noqa: E402
from server import Server, check, fds_of, rss_kib  # noqa: E402

STORY = '<|im_start|>user\nTell me a story about a brave mouse.<|im_end|>\n<|im_start|>assistant\n'
CHAT, TEXT = '/v1/chat/completions', '/v1/completions'


def variants(n_tokens):
    """(path, body): what differs between requests is what a replay must restore."""
    def chat(text, **more):
        return CHAT, {'messages': [{'role': 'user', 'content': text}], 'temperature': 0,
                      'max_tokens': n_tokens, **more}
    no_end = {'logit_bias': {'2047': -100}}  # the demo model's end of turn
    warm = {'temperature': 1.2, 'top_p': 0.95}
    story = 'Tell me a story about a brave mouse.'
    base = [
        chat(story, **no_end),
        chat('What happens when the GPU hangs?'),
        chat(story, **no_end, **warm, seed=7),
        chat(story, **no_end, **warm, seed=8, top_k=30, typical_p=0.9, min_p=0.02),
        chat(story, **no_end, **warm, seed=9, repeat_penalty=1.3, presence_penalty=0.5,
             frequency_penalty=0.2),
        chat(story, **no_end, **warm, seed=10, n=3),
        chat(story, **no_end, logprobs=True, top_logprobs=3),
        chat(story, **no_end, **warm, seed=11, stop=['mouse', ' the sea', 'never there']),
        (TEXT, {'prompt': STORY, 'max_tokens': n_tokens, **no_end, **warm, 'seed': 12, 'logprobs': 2,
                'echo': True}),
        (TEXT, {'prompt': STORY, 'max_tokens': n_tokens, **no_end, **warm, 'seed': 14, 'best_of': 3,
                'n': 2}),
        (TEXT, {'prompt': [STORY, 'One, two,'], 'max_tokens': n_tokens // 2, **warm, 'seed': 13,
                'n': 2}),
    ]
    return with_streams(base)


def short_variants(n_tokens):
    """The same with prompts of a few tokens."""
    more = {'logit_bias': {'2047': -100}, 'max_tokens': n_tokens}
    warm = {**more, 'temperature': 1.2, 'top_p': 0.95}
    return with_streams([
        (TEXT, {'prompt': 'One, two,', 'temperature': 0, **more}),
        (TEXT, {'prompt': 'The mouse', 'logprobs': 2, **warm, 'seed': 15}),
        (TEXT, {'prompt': 'Once', 'repeat_penalty': 1.3, 'top_k': 30, **warm, 'seed': 16}),
        (TEXT, {'prompt': 'The sea', **warm, 'seed': 17, 'n': 2}),
    ])


def with_streams(base):
    out = []
    for path, body in base:
        if 'best_of' not in body:
            out.append((path, {**body, 'stream': True,
                               'stream_options': {'include_usage': True}}))
        out.append((path, body))
    return out


def plain(value):
    """Without what may differ between two answers to one request."""
    if isinstance(value, dict):
        drop = ('id', 'created', 'timings', 'prompt_tokens_details')
        return {k: plain(v) for k, v in value.items() if k not in drop}
    return [plain(v) for v in value] if isinstance(value, list) else value


def parse(raw):
    """A whole response to what is compared: of a stream the events of each choice in order."""
    head, _, body = raw.partition(b'\r\n\r\n')
    status = int(head.split(b' ', 2)[1])
    if b'chunked' in head:
        out, at = b'', 0
        while True:
            end = body.index(b'\r\n', at)
            n = int(body[at:end], 16)
            if n == 0:
                break
            out += body[end + 2:end + 2 + n]
            at = end + 2 + n + 2
        body = out
    if b'text/event-stream' not in head:
        return status, plain(json.loads(body))
    streams, rest = {}, []
    for line in body.decode().split('\n'):
        if not line.startswith('data: '):
            continue
        if line == 'data: [DONE]':
            rest.append('[DONE]')
            continue
        event = plain(json.loads(line[6:]))
        if event.get('choices'):
            streams.setdefault(event['choices'][0]['index'], []).append(event)
        else:
            rest.append(event)
    return status, streams, rest


class Client:
    """One request after the other, each on a connection of its own."""

    def __init__(self, port, works, rng):
        self.port, self.works, self.rng = port, works, rng
        self.sock, self.raw, self.work = None, b'', None
        self.times, self.marks = [], []  # of all its events; of each request's own

    def start(self, selector, work):
        path, body = self.works[work]
        data = json.dumps(body).encode()
        self.sock = socket.create_connection(('127.0.0.1', self.port), 60)
        self.sock.sendall(b'POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: '
                          b'application/json\r\nContent-Length: %d\r\n\r\n' %
                          (path.encode(), len(data)) + data)
        self.sock.setblocking(False)
        self.raw, self.work = b'', work
        self.marks.append([])
        selector.register(self.sock, selectors.EVENT_READ, self)

    def read(self, selector):
        """True at the end of the response."""
        part = self.sock.recv(1 << 18)
        if part:
            self.raw += part
            if b'data: ' in part:
                self.times.append(time.monotonic())
                self.marks[-1].append(self.times[-1])
            return False
        selector.unregister(self.sock)
        self.sock.close()
        self.sock = None
        return True


def run_alone(port, works):
    expected = []
    for i in range(len(works)):
        selector = selectors.DefaultSelector()
        c = Client(port, works, None)
        c.start(selector, i)
        while c.sock:
            for key, _ in selector.select(60):
                key.data.read(selector)
        expected.append(parse(c.raw))
        check(expected[-1][0] == 200, f'{works[i]}: {c.raw[:400]!r}')
    return expected


def worker_of(pid):
    for child in open(f'/proc/{pid}/task/{pid}/children').read().split():
        try:
            if 'worker' in open(f'/proc/{child}/cmdline').read().split('\0')[0]:
                return int(child)
        except OSError:
            pass
    return None


def resumed_after(kill_time, times, longest=0.01):
    """From the kill to the end of the silence that it caused among these tokens; None: it fell before
    the first or after the last. What was on its way to the client still comes for a moment; a silence
    that a second kill drew out counts whole."""
    first = bisect.bisect_right(times, kill_time)
    near = times[max(0, first - 1):bisect.bisect_left(times, kill_time + longest) + 1]
    if first == 0 or first == len(times):
        return None
    return max((b - a, b) for a, b in zip(near, near[1:]))[1] - kill_time


def interrupted(clients, kill_time):
    """The tokens' times of each request that was streaming when the worker was killed."""
    for c in clients:
        at = bisect.bisect_right(c.marks, kill_time, key=lambda marks: marks[0])
        if at:
            yield c.marks[at - 1]


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))] * 1000


def memory(pids):
    return {n: (fds_of(p), rss_kib(p)) for n, p in pids.items()}


def one_stream(s, n_context, n_kills, rng):
    """Times from a kill to the next token of one long stream."""
    works = [(TEXT, {'prompt': [(i * 7919 + 13) % 2000 + 3 for i in range(n_context)], 'temperature': 0,
                     'max_tokens': 14 * n_kills + 20, 'ignore_eos': True, 'stream': True})]
    times = []
    c = Client(s.port, works, rng)
    selector = selectors.DefaultSelector()
    c.start(selector, 0)
    next_kill, kill_time, marks = 10, None, 0
    while c.sock:
        check(selector.select(60), 'the stream does not go on')
        c.read(selector)
        if kill_time and len(c.times) > marks:
            times.append(c.times[marks] - kill_time)
            kill_time, next_kill = None, len(c.times) + rng.randrange(3, 8)
        if not kill_time and len(c.times) >= next_kill and len(times) < n_kills:
            worker = worker_of(s.process.pid)
            os.kill(worker, signal.SIGKILL)
            kill_time = time.monotonic()
            while selector.select(0):  # what it had sent before it died
                c.read(selector)
            marks = len(c.times)
    expected = run_alone(s.port, works)[0]
    check(parse(c.raw) == expected, 'the stream differs from the undisturbed one')
    print(f'{len(times)} kills, from kill to the next token at {n_context} tokens of context: median '
          f'{percentile(times, 0.5):.1f} ms, p99 {percentile(times, 0.99):.1f} ms, max '
          f'{max(times) * 1000:.1f} ms')
    check(times, 'the stream was over too soon')
    print('ok')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('bin')
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--clients', type=int, default=8)
    parser.add_argument('--tokens', type=int, default=120)
    parser.add_argument('--model')
    parser.add_argument('--context', type=int)
    parser.add_argument('--device', choices=('cpu', 'gpu'), default='cpu')
    args = parser.parse_args()
    rng = random.Random(args.seed)
    is_gpu = args.device == 'gpu'
    works = (short_variants if is_gpu else variants)(args.tokens)
    machine = Machine(os.path.abspath(args.bin)) if is_gpu else None
    with Server(args.bin, '--resume-timeout', '600', '--device', args.device,
                *(['--ctx-size', '64', '--parallel', '8', '--chunk-size', '64'] if is_gpu else []),
                env=machine.env if is_gpu else None,
                models=[args.model] if args.model else None) as s:
        if args.context:
            return one_stream(s, args.context, args.kills, rng)
        expected = run_alone(s.port, works)
        selector = selectors.DefaultSelector()
        clients = [Client(s.port, works, rng) for _ in range(args.clients)]
        pids = {'gateway': s.child('rocmforge-gateway'), 'supervisor': s.process.pid}
        before = memory(pids)
        kills, done, wrong = [], [0] * len(works), []
        next_kill, next_token = time.monotonic() + 0.5, math.inf
        if is_gpu:  # the emulator's time for a token is anything
            next_kill, next_token = math.inf, 8
        warm_up, settled = min(20, args.kills // 2), None
        for c in clients:
            c.start(selector, rng.randrange(len(works)))
        while any(c.sock for c in clients):
            due = next_kill if len(kills) < args.kills else math.inf
            ready = selector.select(min(max(0, due - time.monotonic()), 300))
            check(ready or time.monotonic() >= due, 'an answer does not end')
            for key, _ in ready:
                c = key.data
                if not c.read(selector):
                    continue
                got = parse(c.raw)
                done[c.work] += 1
                if got != expected[c.work]:
                    wrong.append((works[c.work], got, expected[c.work]))
                if len(kills) < args.kills:
                    c.start(selector, rng.randrange(len(works)))
            now = time.monotonic()
            n_tokens = sum(len(c.times) for c in clients)
            if len(kills) < args.kills and (now >= next_kill or n_tokens >= next_token):
                worker = worker_of(s.process.pid)
                if worker:
                    try:
                        os.kill(worker, signal.SIGKILL)
                        kills.append(time.monotonic())
                    except ProcessLookupError:
                        pass
                # Mostly when answers run, now and then while it loads or replays.
                quick = rng.random() < 0.1
                next_kill = now + rng.uniform(0, 0.03) if quick else math.inf
                next_token = n_tokens + rng.randrange(2, 16)
                if not quick and not is_gpu:
                    next_kill, next_token = now + rng.uniform(0.05, 0.4), math.inf
                if len(kills) == warm_up:
                    settled = memory(pids)
        merged = sorted(t for c in clients for t in c.times)
        firsts = [resumed_after(t, merged) for t in kills]
        for c in clients:
            c.marks = [marks for marks in c.marks if marks]
        streams = [resumed_after(t, marks) for t in kills for marks in interrupted(clients, t)]
        firsts = [x for x in firsts if x is not None]
        streams = [x for x in streams if x is not None]
        time.sleep(0.3)
        s.settle()
        after = memory(pids)
        live = re.search(r'^rocmforge_requests_live (\d+)', s.get('/metrics')[1].decode(), re.M)
        print(f'{len(kills)} kills, {sum(done)} answers of {len(works)} kinds, {len(wrong)} wrong, '
              f'seed {args.seed}')
        for name, values in (('the next token of any stream', firsts), ('of each stream', streams)):
            if not values:
                continue
            print(f'from kill to {name}: median {percentile(values, 0.5):.1f} ms, p99 '
                  f'{percentile(values, 0.99):.1f} ms, max {max(values) * 1000:.1f} ms '
                  f'({len(values)} observed)')
        print('fds, RSS KiB:', before, '->', settled, '->', after)
        for work, got, want in wrong[:3]:
            print('WRONG', work, '\n  got ', str(got)[:3000], '\n  want', str(want)[:3000])
        check(not wrong, 'answers differ from the undisturbed ones')
        check(min(done) > 0 or args.kills < 50, f'every kind was answered: {done}')
        check(live and live.group(1) == '0', 'no request is left')
        for name in pids:
            check(after[name][0] <= before[name][0], f'{name} leaks descriptors')
            check(after[name][1] <= settled[name][1] + 1024, f'{name} grows')
    print('ok')


main()
