"""The commands that need no server: help, exit codes, and that no input is written over."""
import os
import shutil
import subprocess
import sys
import tempfile

from server import DEMO, check, check_equal

BIN = os.path.join(sys.argv[1], 'rocmforge')
COMMANDS = ['serve', 'run', 'chat', 'inspect', 'logits', 'tokenize', 'detokenize', 'bench',
            'perplexity', 'quantize', 'doctor', 'config']


def command(*args):
    r = subprocess.run([BIN, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=60)
    return r.returncode, r.stdout, r.stderr


def help_of_all():
    for name in COMMANDS:
        code, out, err = command(name, '--help')
        check_equal((code, err), (0, ''), f'{name} --help')
        check(out.startswith('usage: rocmforge ' + name), out)


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


with tempfile.TemporaryDirectory() as scratch:
    help_of_all()
    missing_model(scratch)
    mistakes()
    input_survives(scratch)
print('ok')
