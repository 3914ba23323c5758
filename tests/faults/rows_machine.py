"""Rows about the machine: the GPU lock, the processes that the kernel holds."""
import json
import os
import time

from fuse import Fuse
from matrix import row, tested
from rig import Rig, check, check_equal, percentile
from rows_worker import tempfile_programs

tested('19', 'the lock leaked to a grandchild', 'forked twice while it was held', None,
       'safety/lock_test')


def state_of(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0]
    except OSError:
        return None


def stuck_programs(bin_dir, libexec, only_first):
    """The first worker is a dummy that takes the GPU and is held by the kernel; the next is real, or a
    healthy dummy."""
    dummy = os.path.join(os.path.dirname(os.path.abspath(bin_dir)), 'tests', 'safety_dummy')
    os.mkdir(f'{libexec}/dummy')
    for name, first in (('worker', '[ "$2" = 1 ]' if only_first else 'true'), ('probe', '[ "$1" = --epoch ]')):
        path = f'{libexec}/rocmforge-{name}'
        os.symlink(dummy, f'{libexec}/dummy/rocmforge-{name}')
        os.unlink(path)
        with open(path, 'w') as f:
            f.write(f'#!/bin/sh\n{first} && exec {libexec}/dummy/rocmforge-{name} "$@"\n'
                    f'exec {os.path.abspath(bin_dir)}/rocmforge-{name} "$@"\n')
        os.chmod(path, 0o755)


def threads(pid):
    """The states of its threads, the first one's first."""
    tasks = sorted(os.listdir(f'/proc/{pid}/task'), key=int)
    return ''.join(open(f'/proc/{pid}/task/{t}/stat').read().rsplit(')', 1)[1].split()[0] for t in tasks)


def held(bin_dir, env, states, hold_s):
    """Every request is answered at once with the reason, there is never a second worker, and when the
    kernel lets go the server comes back by itself."""
    with tempfile_programs(bin_dir) as libexec, Fuse() as fuse:
        stuck_programs(bin_dir, libexec, False)
        env = {'DUMMY_WORKER': 'preflight', env: fuse.path + '/x', 'DUMMY_PROBE': '', 'DUMMY_GATEWAY': ''}
        with Rig(bin_dir, '--device', 'auto', '--cpu-fallback', 'never', before=[
                '--stall-ms', '300', '--reap-ms', '300'], libexec=libexec, env=env, ready=False) as s:
            s.port = int(listening_port(s))
            s.wait_log('cannot be killed: the kernel holds it')
            stuck = int(s.wait_log(r'worker \(pid (\d+)\) cannot be killed').group(1))
            check_equal(threads(stuck), states, "states of the worker's threads")
            times, end = [], time.monotonic() + hold_s
            while time.monotonic() < end:
                at = time.monotonic()
                c = s.connect()
                c.request('POST', '/v1/completions', json.dumps({'prompt': 'x'}))
                r = c.getresponse()
                body = json.loads(r.read())
                times.append(time.monotonic() - at)
                c.close()
                check_equal((r.status, body['error']['code']), (503, 'gpu_stalled'), 'the answer')
                check('hangs in the kernel' in body['error']['message'], body)
                check(r.getheader('Retry-After'), 'Retry-After')
                check_equal(s.get('/ready')[0], 503, '/ready')
                check_equal(workers(s), [stuck], 'there is no second worker')
                time.sleep(0.02)
            fuse.answer()
            at = time.monotonic()
            s.wait_log('worker is ready: epoch 2')
            back = time.monotonic() - at
            check(state_of(stuck) is None, 'the stuck one is gone')
    return percentile(times, 0.99), (f'{len(times)} requests, the longest {max(times) * 1000:.0f} ms; '
                                     f'back {back:.1f} s after')


@row('15', 'the worker cannot be killed (state D)',
     'held by a file system for $ROCMFORGE_FAULT_STUCK_S (3) s', 0.010)
def unkillable(bin_dir):
    return held(bin_dir, 'DUMMY_STUCK', 'D', float(os.environ.get('ROCMFORGE_FAULT_STUCK_S', '3')))


@row('17', 'the same of one thread; the process is a zombie', 'as row 15, a thread of the worker', 0.010, slow=True)
def zombie(bin_dir):
    return held(bin_dir, 'DUMMY_STUCK_THREAD', 'ZD', 2)


@row('15a', 'the same, where the CPU may take over', 'as row 15, cpu_fallback always', 2)
def unkillable_on_cpu(bin_dir):
    with tempfile_programs(bin_dir) as libexec, Fuse() as fuse:
        stuck_programs(bin_dir, libexec, True)
        env = {'DUMMY_WORKER': 'preflight', 'DUMMY_STUCK': fuse.path + '/x', 'DUMMY_PROBE': '',
               'DUMMY_GATEWAY': ''}
        with Rig(bin_dir, '--device', 'auto', '--cpu-fallback', 'always', before=[
                '--stall-ms', '300', '--reap-ms', '300'], libexec=libexec, env=env, ready=False) as s:
            s.port = int(listening_port(s))
            s.wait_log('cannot be killed: the kernel holds it')
            at = time.monotonic()
            s.wait_ok()
            took = time.monotonic() - at
            check('42' in s.ask('What is 17 + 25?'), 'an answer')
            check_equal([state_of(p) for p in workers(s)].count('D'), 1, 'the stuck one is left alone')
            fuse.answer()
        return took


def listening_port(s):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for line in open(f'/proc/{s.process.pid}/net/tcp').read().splitlines()[1:]:
            words = line.split()
            if words[3] == '0A' and owns(s.process.pid, words[9]):
                return int(words[1].split(':')[1], 16)
        time.sleep(0.01)
    check(False, 'it does not listen')


def owns(pid, inode):
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            if os.readlink(f'/proc/{pid}/fd/{fd}') == f'socket:[{inode}]':
                return True
        except OSError:
            pass
    return False


def workers(s):
    with open(f'/proc/{s.process.pid}/task/{s.process.pid}/children') as f:
        pids = [int(p) for p in f.read().split()]
    out = []
    for pid in pids:
        try:
            with open(f'/proc/{pid}/comm') as f:  # (a zombie has no command line any more)
                out += [pid] if f.read().strip() == 'rocmforge-worke' else []
        except OSError:
            pass
    return out


tested('16', 'the kernel lets go of it', 'the file system answers', None, 'safety/stuck_test')
