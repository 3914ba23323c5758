"""Rows about what clients send: each is refused before it costs anything, and others go on."""
import json
import time

from matrix import row, tested
from rig import Rig, check, check_equal, raw_exchange


@row('51', 'JSON made to hurt', 'depth 1e5, 1e6 keys, 1e6 digits, bad UTF-8, equal keys', 0.5)
def json_bombs(bin_dir):
    bombs = [b'[' * 100000 + b']' * 100000, b'{"a":' * 100000 + b'1' + b'}' * 100000,
             b'{' + b','.join(b'"k%d":1' % i for i in range(1100000)) + b'}',
             b'{"prompt":"x","temperature":' + b'9' * 1000000 + b'}',
             b'{"prompt":"\xff\xfe\x80"}', b'{"prompt":"a","prompt":"b"}', b'{"prompt":"a"',
             b'{"prompt":"\\ud800"}', b'"' + b'\\u0000' * 100000 + b'"', b'nul', b'']
    with Rig(bin_dir) as s:
        longest = 0
        for bomb in bombs:
            at = time.monotonic()
            status, r = s.post('/v1/completions', bomb)
            longest = max(longest, time.monotonic() - at)
            check(status in (400, 413), f'{bomb[:40]!r}: {status} {str(r)[:200]}')
        return longest


@row('52', 'a body that is too large, or never ends', 'Content-Length 1 GiB; endless chunks', 2)
def large_bodies(bin_dir):
    with Rig(bin_dir) as s:
        at = time.monotonic()
        head = b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n'
        got = raw_exchange(s.port, head + b'Content-Length: 1073741824\r\n\r\n')
        check(got.startswith(b'HTTP/1.1 413'), f'{got[:100]}')
        chunks = b'10000\r\n' + b' ' * 0x10000 + b'\r\n'
        got = b''
        try:
            got = raw_exchange(s.port, head + b'Transfer-Encoding: chunked\r\n\r\n' + chunks * 300)
        except (BrokenPipeError, ConnectionResetError):
            pass
        check(got == b'' or got.startswith(b'HTTP/1.1 413'), f'{got[:100]}')
        return time.monotonic() - at


@row('53', 'a prompt longer than the context', '20,000 tokens, nothing is computed', 0.3)
def long_prompts(bin_dir):
    with Rig(bin_dir) as s:
        at = time.monotonic()
        status, r = s.post('/v1/completions', {'prompt': 'one two three ' * 7000})
        check_equal((status, r['error']['code']), (400, 'context_length_exceeded'), 'the answer')
        return time.monotonic() - at


tested('54', 'templates and patterns made to hurt', 'nesting, endless loops, huge output', None,
       'worker/template_hostile_test')
