"""Rows about the gateway and the supervisor: their deaths, their limits, and the end of the service."""
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time

from matrix import row, tested
from rig import (STORY, Rig, Skip, Stream, chat, check, check_equal, expect_whole)


@row('20', 'a second server on the same port', 'started beside the first', 1)
def two_servers(bin_dir):
    with Rig(bin_dir) as s:
        at = time.monotonic()
        out = subprocess.run([f'{bin_dir}/rocmforge', 'serve', '-m', 'deploy/demo/forge-tiny-Q8_0.gguf',
                              '--port', str(s.port)], capture_output=True, text=True, timeout=20)
        check_equal(out.returncode, 75, f'exit code ({out.stderr})')
        check(str(s.port) in out.stderr, f'it names the port: {out.stderr}')
        return time.monotonic() - at


@row('32', 'the supervisor is killed', 'SIGKILL', 2)
def supervisor_killed(bin_dir):
    with Rig(bin_dir) as s:
        s.before = None
        stream = Stream(s).seen(3)
        at = time.monotonic()
        s.process.kill()
        s.process.wait()
        stream.end(10)
        check(stream.cut or stream.ends != ['done'], 'the connection is cut')
        s.check_gone()
        return time.monotonic() - at


def gateway_dies(bin_dir, sig):
    with Rig(bin_dir) as s:
        worker, gateway = s.worker(), s.gateway()
        stream = Stream(s).seen(3)
        at = time.monotonic()
        os.kill(gateway, sig)
        waiting = socket.create_connection(('127.0.0.1', s.port), 5)  # the socket outlives it
        waiting.sendall(b'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        check(waiting.recv(4096).startswith(b'HTTP/1.1 200'), 'who connected meanwhile is answered')
        s.wait_ok()
        took = time.monotonic() - at
        stream.end(10)
        check(stream.cut, 'its connections close')
        check_equal(s.worker(), worker, 'the worker keeps its models')
        check('42' in s.ask('What is 17 + 25?'), 'the next answer')
        return took


@row('33', 'the gateway is killed', 'SIGKILL with a stream open', 0.300,
     promise='the gateway dies')
def gateway_killed(bin_dir):
    return gateway_dies(bin_dir, signal.SIGKILL)


@row('33a', 'the gateway crashes', 'SIGSEGV with a stream open', 0.300)
def gateway_crashed(bin_dir):
    return gateway_dies(bin_dir, signal.SIGSEGV)


@row('34', "the gateway's loop stops turning", 'SIGSTOP', 13, slow=True)
def gateway_hangs(bin_dir):
    with Rig(bin_dir) as s:
        worker, gateway = s.worker(), s.gateway()
        at = time.monotonic()
        os.kill(gateway, signal.SIGSTOP)
        s.wait_log(r'its loop did not turn', 30)
        s.wait_ok()
        check_equal(s.worker(), worker, 'the worker keeps its models')
        return time.monotonic() - at


@row('39', 'a peer truncates the shared memory', 'ftruncate of every memfd of an epoch')
def truncated_memory(bin_dir):
    with Rig(bin_dir) as s:
        folder, n = f'/proc/{s.process.pid}/fd', 0
        for name in os.listdir(folder):
            if '/memfd:' not in os.readlink(f'{folder}/{name}'):
                continue
            n += 1
            for bytes_ in (0, 1 << 30):
                try:
                    fd = os.open(f'{folder}/{name}', os.O_RDWR)
                    os.ftruncate(fd, bytes_)
                    check(False, f'{os.readlink(f"{folder}/{name}")} can be truncated')
                except PermissionError:
                    pass
        check(n >= 1, 'no shared memory was found')
        return None, f'{n} memfds, EPERM each'


tested('35', "a ring index beyond the ring's end", 'scribbled by a hostile worker', None,
       'gateway/fault_test')
tested('36', 'ring records with bad length, crc, order', 'a million random scribbles', None,
       'ipc/ring_test')
tested('37', 'a record changed between check and use', 'a scribbling peer, copies are taken', None,
       'ipc/ring_test')
tested('38', 'messages of an old epoch', 'replayed after a respawn', None, 'gateway/fault_test')
tested('40', 'unsealed or short shared memory offered', 'by a fake peer', None, 'ipc/channel_test')
tested('41', 'the worker floods the ring', 'a fake worker; a gateway that does not read', None,
       'gateway/fault_test')
tested('42', 'tokens for a request that is not live', 'by a fake worker', None, 'gateway/fault_test')
tested('43', 'a wake-up is lost', 'the bell is swallowed', 0.05, 'ipc/ring_process_test')
tested('44', 'a client that reads too slowly', 'reads nothing; others go on', 30,
       'gateway/timing_test', slow=True)
tested('45', '500 clients that trickle bytes', 'a byte a second; a normal one beside', 30,
       'gateway/timing_test', slow=True)
tested('50', 'malformed and smuggling requests', 'the corpus', None, 'gateway/http_test')


@row('46', 'a client leaves in mid-stream', 'RST after 5 events, 20 clients', 0.5)
def client_leaves(bin_dir):
    with Rig(bin_dir) as s:
        body = json.dumps({**STORY, 'stream': True}).encode()
        socks = []
        for _ in range(20):
            c = socket.create_connection(('127.0.0.1', s.port))
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
            c.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: '
                      b'application/json\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
            socks.append(c)
        for c in socks:
            got = b''
            while got.count(b'data: ') < 5:
                got += c.recv(65536)
        at = time.monotonic()
        for c in socks:
            c.close()
        while s.metric('requests_live') > 0 or s.metric('worker_sequences_active') > 0:
            check(time.monotonic() - at < 10, 'they are still computed')
            time.sleep(0.002)
        return time.monotonic() - at


@row('47', 'a client closes its sending half', 'shutdown(SHUT_WR) after the request')
def half_closed(bin_dir):
    with Rig(bin_dir) as s:
        whole = Stream(s).end().text
        body = json.dumps({**STORY, 'stream': True}).encode()
        c = socket.create_connection(('127.0.0.1', s.port), 30)
        c.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n'
                  b'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
        c.shutdown(socket.SHUT_WR)
        got = b''
        while True:
            part = c.recv(65536)
            if not part:
                break
            got += part
        text = ''.join(json.loads(line[6:])['choices'][0]['delta'].get('content', '')
                       for line in got.decode().split('\n')
                       if line.startswith('data: {') and '"choices":[{' in line)
        check_equal(text, whole, 'the answer')
        check(b'[DONE]' in got, 'its end')


@row('48', 'no descriptor is left for connections', 'RLIMIT_NOFILE of the gateway lowered to 64', 1)
def no_descriptors(bin_dir):
    with Rig(bin_dir) as s:
        gateway = s.gateway()
        old = resource.prlimit(gateway, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway, resource.RLIMIT_NOFILE, (64, old[1]))
        socks = [socket.create_connection(('127.0.0.1', s.port)) for _ in range(300)]
        time.sleep(0.3)
        stat = open(f'/proc/{gateway}/stat').read().rsplit(')', 1)[1].split()
        time.sleep(1)
        now = open(f'/proc/{gateway}/stat').read().rsplit(')', 1)[1].split()
        spent = sum(map(int, now[11:13])) - sum(map(int, stat[11:13]))
        check(spent < 30, f'it spins: {spent} of 100 clock ticks')
        at = time.monotonic()
        for c in socks:
            c.close()
        while True:
            try:
                if s.get('/health')[0] == 200:
                    break
            except OSError:
                pass
            check(time.monotonic() - at < 10, 'it does not recover')
        took = time.monotonic() - at
        resource.prlimit(gateway, resource.RLIMIT_NOFILE, old)
        check_equal(s.gateway(), gateway, 'the same gateway')
        return took


@row('49', 'more requests than the queue holds', '60 at once, queue_size 4, parallel 2', 0.05)
def queue_full(bin_dir):
    with Rig(bin_dir, '--queue-size', '4', '--parallel', '2') as s:
        results, lock = [], threading.Lock()

        def one():
            at = time.monotonic()
            c = s.connect()
            c.request('POST', '/v1/chat/completions', json.dumps(STORY),
                      {'Content-Type': 'application/json'})
            r = c.getresponse()
            r.read()
            with lock:
                results.append((r.status, r.getheader('Retry-After'), time.monotonic() - at))
            c.close()
        threads = [threading.Thread(target=one) for _ in range(60)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        busy = [x for x in results if x[0] in (429, 503)]
        check(busy and all(x[1] and 1 <= int(x[1]) <= 59 for x in busy), f'{results}')
        check(all(x[0] in (200, 429, 503) for x in results), f'{results}')
        check(any(x[0] == 200 for x in results), 'some are answered')
        return sorted(x[2] for x in busy)[len(busy) // 2], f'{len(busy)} of 60 refused'


@row('63', 'memory for request bodies runs out', '200 bodies of 2 MiB at once')
def many_bodies(bin_dir):
    with Rig(bin_dir) as s:
        head = (b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
                b'Content-Length: %d\r\n\r\n' % (2 << 20))
        socks = []
        for _ in range(200):
            c = socket.create_connection(('127.0.0.1', s.port))
            c.setblocking(False)
            socks.append([c, head + b' ' * ((2 << 20) - 1)])
        end = time.monotonic() + 15
        while any(data for _, data in socks) and time.monotonic() < end:
            for item in socks:
                if item[1]:
                    try:
                        item[1] = item[1][item[0].send(item[1]):]
                    except BlockingIOError:
                        pass
                    except OSError:
                        item[1] = b''
        n_refused = 0
        for c, _ in socks:
            try:
                n_refused += b' 503 ' in c.recv(100) or b' 413 ' in c.recv(100)
            except OSError:
                pass
        with open(f'/proc/{s.gateway()}/status') as f:
            mib = int([x for x in f if x.startswith('VmHWM')][0].split()[1]) >> 10
        check(mib < 400, f'the gateway holds {mib} MiB')
        check('42' in s.ask('What is 17 + 25?'), 'others are answered')
        for c, _ in socks:
            c.close()
        return None, f'{n_refused} refused, gateway at most {mib} MiB'


@row('66', 'the service is told to end', 'SIGTERM while four streams run', 20,
     promise='SIGTERM')
def drained(bin_dir):
    with Rig(bin_dir) as s:
        whole = Stream(s).end().text
        streams = [Stream(s).seen(3) for _ in range(4)]
        at = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        s.wait_log('stopping: ')
        while True:
            try:
                socket.create_connection(('127.0.0.1', s.port), 10).close()
            except ConnectionRefusedError:
                break
            except ConnectionResetError:
                pass
            check(time.monotonic() - at < 30, 'new connections are taken')
        for stream in streams:
            expect_whole(stream, whole)
        check_equal(s.process.wait(60), 0, 'exit code')
        return time.monotonic() - at


@row('66a', 'the time to drain is over', 'SIGTERM, drain_timeout 0.3 s, worker slowed', 3)
def drain_over(bin_dir):
    with Rig(bin_dir, '--drain-timeout', '0.3') as s:
        stream = Stream(s).seen(3)
        worker = s.worker()
        at = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        while s.process.poll() is None and time.monotonic() - at < 10:
            try:
                os.kill(worker, signal.SIGSTOP)
                time.sleep(0.02)
                os.kill(worker, signal.SIGCONT)
            except ProcessLookupError:
                break
            time.sleep(0.001)
        check_equal(s.process.wait(60), 0, 'exit code')
        stream.end()
        check(stream.ends == ['error'] or stream.reason, f'{stream.ends} {stream.cut}')
        return time.monotonic() - at


@row('67', 'settings are read again', 'SIGHUP 20 times under 4 clients')
def reloaded(bin_dir):
    with Rig(bin_dir) as s:
        wrong, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                try:
                    if '42' not in s.ask('What is 17 + 25?'):
                        wrong.append('another answer')
                except Exception as e:
                    wrong.append(repr(e))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        for _ in range(20):
            s.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        stop.set()
        for t in threads:
            t.join()
        check(not wrong, f'{wrong[:3]}')
        s.wait_log('generation 2[01]')


@row('71', 'nobody reads the log', 'stderr is a full pipe; then worker and gateway die', 2)
def log_is_full(bin_dir):
    reads, writes = os.pipe()
    with RigOnPipe(bin_dir, writes) as s:
        os.set_blocking(writes, False)
        try:
            while True:
                os.write(writes, b'x')
        except BlockingIOError:
            os.set_blocking(writes, True)  # as our programs find it
        at = time.monotonic()
        os.kill(s.worker(), signal.SIGSEGV)
        s.wait_ok(20)
        check('42' in s.ask('What is 17 + 25?'), 'the next answer')
        os.kill(s.gateway(), signal.SIGSEGV)
        s.wait_ok(20)
        took = time.monotonic() - at
    os.close(reads)
    os.close(writes)
    return took


class RigOnPipe(Rig):
    """One that logs into this pipe, which nobody empties once the port is known."""

    def __init__(self, bin_dir, pipe):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        super().__init__(bin_dir, '--port', str(port), stderr=pipe)
        self.known = port

    def wait_ready(self, seconds=60):
        self.port = self.known
        self.wait_ok(seconds)


@row('60', 'the disk of the log is full', 'stderr is /dev/full; then the worker dies', 1)
def disk_is_full(bin_dir):
    full = os.open('/dev/full', os.O_WRONLY)
    with RigOnPipe(bin_dir, full) as s:
        at = time.monotonic()
        os.kill(s.worker(), signal.SIGSEGV)
        s.wait_ok(20)
        check('42' in s.ask('What is 17 + 25?'), 'the next answer')
        took = time.monotonic() - at
    os.close(full)
    return took
