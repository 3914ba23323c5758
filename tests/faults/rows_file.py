"""Rows about files and memory: models that are cut, changed, unreadable; memory that is not there."""
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from fuse import Fuse
from matrix import row, tested
from rig import (DEMO, STORY, Rig, Stream, chat, check, check_equal, expect_whole)
from rows_gpu import machine, served


class folder:
    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix='rocmforge-faults-')
        return self.path

    def __exit__(self, kind, value, trace):
        shutil.rmtree(self.path, ignore_errors=True)


def serve_and_end(bin_dir, *args):
    return subprocess.run([f'{bin_dir}/rocmforge', 'serve', '--port', '0', *args],
                          capture_output=True, text=True, timeout=60)


@row('55', 'a model file that is cut short', 'cut at 24 places, from 0 bytes to one less', 1)
def cut_models(bin_dir):
    with open(DEMO, 'rb') as f:
        data = f.read()
    with folder() as d:
        longest = 0
        sizes = [0, 1, 3, 4, 8, 16, 23, 24, 25, 100, 1000, 4096, 4097, 50000]
        sizes += [len(data) * i // 10 for i in range(1, 10)] + [len(data) - 1]
        for n in sizes:
            path = f'{d}/cut.gguf'
            with open(path, 'wb') as f:
                f.write(data[:n])
            at = time.monotonic()
            out = serve_and_end(bin_dir, '-m', path)
            longest = max(longest, time.monotonic() - at)
            check_equal(out.returncode, 16, f'cut at {n}: {out.stderr}')
            check('cut.gguf' in out.stderr, f'it names the file: {out.stderr}')
        return longest


tested('56', 'model files made to hurt', 'every known way, every byte changed', None,
       'shared/gguf_hostile_test')


@row('55a', 'a model that is cut is asked for later', 'POST /v1/models/load of a second model', 1)
def cut_model_later(bin_dir):
    with folder() as d:
        shutil.copy(DEMO, f'{d}/second.gguf')
        with Rig(bin_dir, '--max-models', '1', models=['forge-tiny=' + DEMO, f'b={d}/second.gguf']) as s:
            worker = s.worker()
            os.truncate(f'{d}/second.gguf', 100000)
            at = time.monotonic()
            status, r = s.post('/v1/completions', {'model': 'b', 'prompt': 'x'})
            took = time.monotonic() - at
            check(status in (400, 503), f'{status} {r}')
            check(r['error']['code'].startswith(('gguf_', 'model_')), f'{r}')
            s.settle()
            check_equal(s.worker(), worker, 'the worker lives')
            return took


def changed(bin_dir, change):
    """The file changes while a stream reads from it: the client hears of it, and after the file is
    back the server serves again by itself."""
    with folder() as d:
        path = f'{d}/m.gguf'
        shutil.copy(DEMO, path)
        with Rig(bin_dir, models=['forge-tiny=' + path]) as s:
            s.post('/v1/completions', {'prompt': 'x', 'max_tokens': 2})
            change(path)
            at = time.monotonic()
            stream = Stream(s)
            stream.end(30)
            took = time.monotonic() - at
            shutil.copy(DEMO, path + '.new')
            os.rename(path + '.new', path)
            s.process.send_signal(signal.SIGHUP)
            s.wait_ok()
            check('42' in s.ask('What is 17 + 25?'), 'afterwards')
            return stream, took


@row('57', 'the model file is cut while it is in use', 'ftruncate to 4 KiB', 1)
def cut_in_use(bin_dir):
    stream, took = changed(bin_dir, lambda path: os.truncate(path, 4096))
    check(stream.ends in (['status'], ['error'], ['done']), f'{stream.ends} {stream.cut}')
    if stream.ends != ['done']:
        check(stream.error['code'] in ('model_changed', 'gguf_truncated'), f'{stream.error}')
    return took, stream.error['code'] if stream.error else 'served from memory'


@row('57a', 'the model file is replaced while it is in use', 'rename of another over it', 2)
def replaced_in_use(bin_dir):
    def replace(path):
        with open(path + '.other', 'wb') as f:
            f.write(b'not a model')
        os.rename(path + '.other', path)
    stream, took = changed(bin_dir, replace)
    if stream.ends == ['done']:
        return took, 'the old file is still read'
    check(stream.error['code'].startswith(('gguf_', 'model_')), f'{stream.error}')
    return took, stream.error['code']


@row('28', 'the model computes NaN', 'a scale in the file is NaN', 1)
def nan_model(bin_dir):
    with open(DEMO, 'rb') as f:
        data = bytearray(f.read())
    with folder() as d:
        at = tensor_offset(data, b'blk.0.ffn_down.weight')
        data[at:at + 2] = struct.pack('<H', 0x7e00)
        with open(f'{d}/nan.gguf', 'wb') as f:
            f.write(data)
        with Rig(bin_dir, models=['forge-tiny=' + DEMO, f'nan={d}/nan.gguf']) as s:
            at = time.monotonic()
            status, r = s.post('/v1/completions', {'model': 'nan', 'prompt': 'x'})
            took = time.monotonic() - at
            check_equal((status, r['error']['code']), (500, 'numeric_fault'), 'the answer')
            check('42' in s.ask('What is 17 + 25?', model='forge-tiny'), 'the other model')
            s.settle()
            return took


def tensor_offset(data, name):
    """Where this tensor's data begin; reads the file's table of contents."""
    at = 8
    n_tensors, n_keys = struct.unpack_from('<QQ', data, at)
    at += 16
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    alignment = 32

    def text(at):
        n, = struct.unpack_from('<Q', data, at)
        return bytes(data[at + 8:at + 8 + n]), at + 8 + n

    def skip(at, kind):
        if kind == 8:
            return text(at)[1]
        if kind == 9:
            of, n = struct.unpack_from('<IQ', data, at)
            at += 12
            if of in sizes:
                return at + n * sizes[of]
            for _ in range(n):
                at = skip(at, of)
            return at
        return at + sizes[kind]
    for _ in range(n_keys):
        key, at = text(at)
        kind, = struct.unpack_from('<I', data, at)
        if key == b'general.alignment':
            alignment, = struct.unpack_from('<I', data, at + 4)
        at = skip(at + 4, kind)
    found = None
    for _ in range(n_tensors):
        this, at = text(at)
        n_dims, = struct.unpack_from('<I', data, at)
        offset, = struct.unpack_from('<Q', data, at + 4 + 8 * n_dims + 4)
        at += 4 + 8 * n_dims + 12
        found = offset if this == name else found
    check(found is not None, f'no tensor {name}')
    return (at + alignment - 1) // alignment * alignment + found


@row('72a', 'the model is another after a restart', 'its weights are changed, then SIGKILL', 2)
def diverged(bin_dir):
    with open(DEMO, 'rb') as f:
        data = bytearray(f.read())
    with folder() as d:
        path = f'{d}/m.gguf'
        shutil.copy(DEMO, path)
        at = tensor_offset(data, b'blk.1.ffn_down.weight')
        for i in range(0, 34 * 200, 34):
            data[at + i:at + i + 2] = struct.pack('<e', 0.05)
        with open(f'{d}/other.gguf', 'wb') as f:
            f.write(data)
        with Rig(bin_dir, models=['forge-tiny=' + path]) as s:
            stream = Stream(s).seen(30)
            os.rename(f'{d}/other.gguf', path)
            at = time.monotonic()
            os.kill(s.worker(), signal.SIGKILL)
            stream.end()
            check(stream.error and stream.error['code'] in ('replay_divergence', 'model_changed'),
                  f'never other text: {stream.ends} {stream.error}')
            return time.monotonic() - at, stream.error['code']


@row('A2', 'settings that make no sense', '14 command lines, 3 files', 1)
def bad_settings(bin_dir):
    longest = 0
    with folder() as d:
        with open(f'{d}/a.conf', 'w') as f:
            f.write('nonsense = 1\n')
        with open(f'{d}/b.conf', 'wb') as f:
            f.write(b'\xff\0\xfe = \n' * 10)
        os.mkdir(f'{d}/c.conf')
        lines = [['--port', '99999'], ['--port', '-1'], ['--port', 'x'], ['--device', 'tpu'],
                 ['--isa', 'mmx'], ['--parallel', '0'], ['--kv-memory-share', '7'],
                 ['--kv-memory-share', 'nan'], ['--queue-size'], ['--nonsense'], ['--host', 'no.such.'],
                 ['--api-key-file', '/nonexistent'], ['--unix', '/nonexistent/x'], ['--chunk-size', '1'],
                 ['--config', f'{d}/a.conf'], ['--config', f'{d}/b.conf'], ['--config', f'{d}/c.conf']]
        for line in lines:
            at = time.monotonic()
            out = serve_and_end(bin_dir, '-m', DEMO, *line)
            longest = max(longest, time.monotonic() - at)
            check(out.returncode in (1, 2, 11), f'{line}: {out.returncode}: {out.stderr}')
            check(out.stderr.strip() and 'assert' not in out.stderr.lower(), f'{line}: {out.stderr}')
    return longest


@row('A3', 'models that are not there', 'no file, a folder, no permission, two of one name', 1)
def no_models(bin_dir):
    with folder() as d:
        at = time.monotonic()
        for args, code in (([f'{d}/none.gguf'], 16), ([d], 16), (['/dev/null'], 16),
                           ([f'a={DEMO}', f'a={DEMO}'], 11)):
            out = serve_and_end(bin_dir, *[x for a in args for x in ('-m', a)])
            check_equal(out.returncode, code, f'{args}: {out.stderr}')
        return (time.monotonic() - at) / 4


def demo_data(name):
    """The demo model, and where this tensor's data begin in it."""
    with open(DEMO, 'rb') as f:
        data = f.read()
    return data, tensor_offset(data, name)


def with_bad(bin_dir, fuse):
    """A server with a model that is loaded, and one in a file system of ours that is not."""
    return Rig(bin_dir, '--device', 'cpu', '--max-models', '2',
               models=[f'a={DEMO}', f'b={DEMO}', f'bad={fuse.path}/bad.gguf'])


BAD = {'model': 'bad', 'prompt': 'x', 'max_tokens': 1}
A_STORY = {**STORY, 'model': 'a'}


@row('58', 'a model lies on a disk that stalls', 'reads from its weights on do not come back', 11.5, slow=True)
def stalled_disk(bin_dir):
    data, at = demo_data(b'blk.2.ffn_down.weight')
    with Fuse({'bad.gguf': data}, stalls=at + 8192) as fuse, with_bad(bin_dir, fuse) as s:
        whole, worker, begin = Stream(s, A_STORY).end().text, s.worker(), time.monotonic()
        asked = Stream(s, BAD, '/v1/completions')
        for _ in range(3):
            expect_whole(Stream(s, A_STORY), whole)
        asked.end(30)
        took = time.monotonic() - begin
        check_equal((asked.ends, asked.error['code']), (['error'], 'model_stalled'), 'the answer')
        begin = time.monotonic()
        status, r = s.post('/v1/completions', BAD)
        check_equal((status, r['error']['code']), (503, 'model_stalled'), 'asked again')
        check(time.monotonic() - begin < 5, 'at once')
        expect_whole(Stream(s, A_STORY), whole)
        fuse.answer()
        end = time.monotonic() + 120
        while s.post('/v1/completions', BAD)[0] != 200:
            check(time.monotonic() < end, 'it is not loaded though the disk answers')
        check_equal(s.worker(), worker, 'the same worker all the time')
        s.settle()  # what the model leaves to later workers is kept
        return took


@row('58a', 'the first model lies on such a disk', 'the same; no progress may take 1 s (60)', 6, slow=True)
def stalled_at_start(bin_dir):
    data, at = demo_data(b'blk.2.ffn_down.weight')
    with Fuse({'bad.gguf': data}, stalls=at + 8192) as fuse, Rig(
            bin_dir, '--device', 'cpu', before=['--stall-ms', '1000', '--reap-ms', '500'], ready=False,
            models=[f'bad={fuse.path}/bad.gguf']) as s:
        begin = time.monotonic()
        s.port = int(s.wait_log(r'listening on http://127.0.0.1:(\d+)').group(1))
        s.wait_log('cannot be killed: the kernel holds it')
        took, stuck = time.monotonic() - begin, s.worker()
        status, r = s.post('/v1/completions', BAD)
        check_equal((status, r['error']['code']), (503, 'model_stalled'), 'the answer')
        time.sleep(1.5)
        check_equal(s.worker(), stuck, 'no other worker waits beside it')
        fuse.answer()
        s.wait_ok()
        check(s.worker() != stuck, 'another worker')
        s.settle()
        return took


@row('59', 'the disk fails under a model', 'reads from its weights on fail (EIO)', 1)
def failing_disk(bin_dir):
    data, at = demo_data(b'blk.2.ffn_down.weight')
    with Fuse({'bad.gguf': data}, fails=at + 8192) as fuse, with_bad(bin_dir, fuse) as s:
        whole, worker, begin = Stream(s, A_STORY).end().text, s.worker(), time.monotonic()
        stream = Stream(s, A_STORY).seen(2)
        status, r = s.post('/v1/completions', BAD)
        took = time.monotonic() - begin
        check_equal((status, r['error']['code']), (503, 'model_io_error'), 'the answer')
        place = int(r['error']['message'].split('byte ')[1].split()[0])
        check(at < place < len(data), f'{place} is not behind {at}: {r}')
        expect_whole(stream, whole)
        check_equal(s.worker(), worker, 'the worker lives')
        return took


@row('59a', 'the same, of the first model', 'the command ends and says where', 1)
def failing_at_start(bin_dir):
    data, at = demo_data(b'blk.2.ffn_down.weight')
    with Fuse({'bad.gguf': data}, fails=at + 8192) as fuse:
        begin = time.monotonic()
        out = serve_and_end(bin_dir, '-m', f'{fuse.path}/bad.gguf')
        took = time.monotonic() - begin
        check_equal(out.returncode, 19, out.stderr)
        check('bad.gguf' in out.stderr and 'byte ' in out.stderr, out.stderr)
        return took


@row('59c', 'the disk fails under a model for the GPU', 'the same, packed for the card', 5, slow=True)
def failing_for_gpu(bin_dir):
    data, at = demo_data(b'blk.2.ffn_down.weight')
    m = machine(bin_dir)
    with Fuse({'bad.gguf': data}, fails=at + 8192) as fuse, served(
            bin_dir, m, '--max-models', '2',
            models=[f'a={DEMO}', f'b={DEMO}', f'bad={fuse.path}/bad.gguf']) as s:
        begin, worker = time.monotonic(), s.worker()
        status, r = s.post('/v1/completions', BAD)
        took = time.monotonic() - begin
        check_equal((status, r['error']['code']), (503, 'model_io_error'), 'the answer')
        check('byte ' in r['error']['message'], f'the place: {r}')
        check_equal(s.worker(), worker, 'the worker lives')
        return took


def reads(file, offset):
    try:
        return os.pread(file.fileno(), 1, offset)
    except OSError:
        return b''


@row('59b', 'the disk fails while its model is in use', 'what was read is forgotten, then EIO', 2)
def failing_in_use(bin_dir):
    data, at = demo_data(b'token_embd.weight')
    with Fuse({'bad.gguf': data}, breaks=at) as fuse, Rig(
            bin_dir, '--device', 'cpu', models=[f'bad={fuse.path}/bad.gguf']) as s:
        fuse.destroy()
        with open(f'{fuse.path}/bad.gguf', 'rb', buffering=0) as f:
            while reads(f, len(data) - 1):  # until the last page is forgotten, too
                time.sleep(0.01)
        begin = time.monotonic()
        status, r = s.post('/v1/completions', {'prompt': 'Never seen words: ' + str(begin), 'max_tokens': 4})
        took = time.monotonic() - begin
        check_equal((status, r['error']['code']), (503, 'model_io_error'), 'the answer')
        s.wait_log(r'cannot be read, at byte \d+')
        check_equal(s.metric('poison_requests'), 0, 'no request is to blame')
        fuse.answer()
        s.process.send_signal(signal.SIGHUP)
        s.wait_ok()
        return took


tested('61', 'memory cannot be had', 'the Nth allocation fails, for every N', None,
       'shared/memory_failure_test')


@row('62', 'the kernel ends the worker for want of memory', 'SIGKILL; memory.events counts, made up', 3)
def out_of_memory(bin_dir):
    with folder() as d:
        events = f'{d}/sys/fs/cgroup/service/memory.events'

        def put(path, text):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'w') as f:
                f.write(text)

        put(f'{d}/proc/self/cgroup', '0::/service\n')
        put(events, 'low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n')
        with Rig(bin_dir, '--device', 'cpu', env={'ROCMFORGE_MACHINE_ROOT': d}) as s:
            whole = Stream(s).end().text
            stream = Stream(s).seen(5)
            put(events, 'low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\n')
            at, worker = time.monotonic(), s.worker()
            os.kill(worker, signal.SIGKILL)
            expect_whole(stream, whole)
            s.wait_log(r'was killed by SIGKILL \(the kernel was out of memory\)')
            check_equal((s.metric('worker_deaths_oom'), s.metric('worker_deaths_own_fault'),
                         s.metric('kv_blocks_restored')), (1, 1, 0), 'counted, and nothing was kept')
            took = stream.resumed(at)
            worker = s.worker()
            os.kill(worker, signal.SIGKILL)  # somebody else's
            s.wait_new_worker(worker)
            s.wait_ok()
            check_equal(s.metric('worker_deaths_oom'), 1, 'this one was not')
            return took
