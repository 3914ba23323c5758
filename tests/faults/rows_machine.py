"""Rows about the machine: the GPU lock, the preflight, the processes that the kernel holds."""
from matrix import tested

tested('19', 'the lock leaked to a grandchild', 'forked twice while it was held', None,
       'safety/lock_test')
tested('15', 'the worker cannot be killed (state D)', 'a FUSE mount that does not answer', None,
       'safety/stuck_test')
