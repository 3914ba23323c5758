"""The commands that need no server: help, exit codes, and that no input is written over."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from server import DEMO, check, check_equal

BIN = os.path.join(sys.argv[1], 'rocmforge')
COMMANDS = ['serve', 'run', 'chat', 'inspect', 'logits', 'tokenize', 'detokenize', 'bench',
            'perplexity', 'quantize', 'doctor', 'report', 'poison', 'config']


def command(*args):
    r = subprocess.run([BIN, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=60)
    return r.returncode, r.stdout, r.stderr


def help_of_all():
    for name in COMMANDS:
        code, out, err = command(name, '--help')
        check_equal((code, err), (0, ''), f'{name} --help')
        check(out.startswith('usage: rocmforge ' + name), out)
    code, out, err = command('bench', '--server', '--help')
    check_equal((code, err), (0, ''), 'bench --server --help')
    check('--clients' in out, out)


def missing_model(folder):
    for args in (['run', '-p', 'x'], ['inspect'], ['logits', '--tokens', '1', '-o', folder + '/x'],
                 ['tokenize', '-p', 'x'], ['detokenize', '1'], ['bench'],
                 ['perplexity', '-f', __file__]):
        code, out, err = command(*args, '-m', folder + '/none.gguf')
        check_equal(code, 16, f'{args}: {err}')
        check('none.gguf: No such file' in err, err)


def mistakes():
    for args in (['chat', '-m', DEMO, '-p', 'x'], ['run', '-m', DEMO], ['quantize', DEMO],
                 ['quantize', DEMO, 'x', 'Q9'], ['inspect', DEMO, '--no-such-thing']):
        code, out, err = command(*args)
        check_equal((code, out), (2, ''), f'{args}: {err}')


def input_survives(folder):
    path, link = folder + '/m.gguf', folder + '/link.gguf'
    shutil.copy(DEMO, path)
    os.symlink(path, link)
    for source, target in ((path, path), (link, path), (path, link)):
        code, out, err = command('quantize', source, target, 'Q4_0')
        check_equal(code, 2, f'{source} to {target}: {err}')
    check_equal(os.path.getsize(path), os.path.getsize(DEMO), 'the input')
    check_equal(command('quantize', path, folder + '/small.gguf', 'Q4_0')[0], 0, 'quantize')
    check_equal(command('run', '-m', folder + '/small.gguf', '-p', 'What is 2 + 3?', '--temp', '0',
                        '-q')[1], '2 + 3 = 5.\n', 'what the copy says')


def benchmarks(folder):
    """Every test of a run finds itself in the baseline; a baseline out of reach ends with its own code."""
    tests = ['-m', DEMO, '-p', '16', '-n', '4', '-d', '0,32', '-b', '1,3', '-r', '1',
             '--kv-types', 'f16,f32', '--thread-counts', '1,2']
    code, out, err = command('bench', *tests, '--json')
    check_equal(code, 0, err)
    run = json.loads(out)
    check_equal(len(run['results']), 2 * 2 * 2 * 3, 'results')
    check_equal(len({json.dumps([r[k] for k in ('test', 'tokens', 'depth', 'batch', 'threads', 'kv_type')])
                     for r in run['results']}), len(run['results']), 'different results')
    for scale, want in ((1e-6, 0), (1e6, 25)):
        with open(folder + '/baseline.json', 'w') as f:
            json.dump(run | {'results': [r | {'tokens_per_s': r['tokens_per_s'] * scale}
                                         for r in run['results']]}, f)
        code, out, err = command('bench', *tests, '--baseline', folder + '/baseline.json')
        check_equal(code, want, err)
        check_equal(out.count('   x '), len(run['results']), out)
    with open(folder + '/baseline.json', 'w') as f:
        f.write('{"results":3}')
    code, out, err = command('bench', *tests, '--baseline', folder + '/baseline.json')
    check_equal(code, 11, err)
    code, out, err = command('bench', '-m', DEMO, '-p', '16', '-n', '4', '-r', '1', '--profile')
    check_equal(code, 0, err)
    check('matmul token_embd' in out and 'attention' in out, out)
    for url in ('https://localhost', 'http://', 'localhost:x'):
        code, out, err = command('bench', '--server', url)
        check_equal(code, 2, err)
    code, out, err = command('bench', '--server', '[::1]:1', '--requests', '3', '--json')
    check_equal((code, json.loads(out)['failed']), (1, 3), err)
    check('connection refused' in err, err)


with tempfile.TemporaryDirectory() as scratch:
    benchmarks(scratch)
    help_of_all()
    missing_model(scratch)
    mistakes()
    input_survives(scratch)
print('ok')
