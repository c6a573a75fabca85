"""A disk that takes no more from the k-th system call on, inside this Python process."""

import errno
import os
import unittest.mock


class FullDisk:
    """From the k-th call on, the system calls that write fail; `calls` counts them. The first to fail writes a part."""

    NAMES = ("open", "mkdir", "pwrite", "write", "ftruncate", "fsync", "rename")

    def __init__(self, k):
        self.k, self.calls, self.patches = k, 0, []

    def __enter__(self):
        for name in self.NAMES:
            patch = unittest.mock.patch.object(os, name, self.failing(name, getattr(os, name)))
            self.patches.append(patch)
            patch.start()
        return self

    def __exit__(self, *error):
        for patch in self.patches:
            patch.stop()

    def failing(self, name, call):
        def counted(*arguments, **options):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return call(*arguments, **options)
            self.calls += 1
            if name == "pwrite" and self.calls == self.k and len(arguments[1]) > 1:
                return call(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:])
            if self.k and self.calls >= self.k:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **options)

        return counted
