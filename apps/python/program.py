"""How the programs beside `tessera` read their options, write files and end: exit codes, and one line on stderr, never a traceback."""
import argparse
import contextlib
import errno
import os
import signal
import sys

EXIT_USAGE, EXIT_DATA, EXIT_MISSING, EXIT_INTERNAL, EXIT_MEMORY, EXIT_IO = 64, 65, 66, 70, 71, 74


class ProgramError(Exception):
    """What a user reads, and the exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def temporary_name(path):
    """A name beside `path` for a file in the making. What processes that no longer live left there is removed."""
    remove_leftovers(os.fspath(path))
    return f"{path}.tmp.{os.getpid()}"


def remove_leftovers(path):
    folder, start = os.path.dirname(path) or ".", os.path.basename(path) + ".tmp."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for name in names:
        process = name.removeprefix(start)
        if name.startswith(start) and process.isdecimal() and not alive(int(process)):
            with contextlib.suppress(OSError):  # another one may remove it, too
                os.remove(os.path.join(folder, name))


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no process id
        return True
    try:
        with open(f"/proc/{process}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"  # it has ended, and was not waited for yet
    except (OSError, IndexError):
        return True


def publish(descriptor, temporary, path):
    """Gives a written file its name once it is on disk. The descriptor is closed in any case."""
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_durably(path, data):
    """A file appears under its name when it is whole and on disk; an OSError leaves the old one, and nothing else."""
    path, rest = os.fspath(path), memoryview(data)
    temporary = temporary_name(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest):]
        except OSError:
            os.close(descriptor)
            raise
        publish(descriptor, temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise ProgramError(EXIT_IO, f"{path}: cannot be written: {error.strerror} (errno {error.errno})") from error


def print_result(text):
    """To standard output. What it does not take must not be tried again when the interpreter ends."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        print(text, flush=True)
    except OSError as error:
        sys.stdout = None
        raise ProgramError(EXIT_IO, f"standard output: cannot be written: {error.strerror} (errno {error.errno})") from error


class Parser(argparse.ArgumentParser):
    """Options whose mistakes are one line and exit code 64."""

    def __init__(self, description):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        raise ProgramError(EXIT_USAGE, message)


def whole(least, most):
    """An option's type: a whole number from `least` to `most`, in decimal digits alone."""

    def convert(text):
        good = text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) < 30
        if not good or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got '{text:.60}'")
        return int(text)
    return convert


def exit_code_of(name, body):
    """The exit code of body(), whose result is printed unless it is None."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would print a traceback
    try:
        result = body()
        if result is not None:
            print_result(result)
    except ProgramError as error:
        return ended(name, error, error.code)
    except ImportError as error:
        return ended(name, f"{error}; install with: pip install -r apps/python/requirements.txt", EXIT_MISSING)
    except OSError as error:
        return ended(name, error, EXIT_IO)
    except MemoryError:
        return ended(name, "out of memory", EXIT_MEMORY)
    except Exception as error:  # a fault of ours: a user can do nothing with a traceback
        return ended(name, f"internal error: {type(error).__name__}: {error}", EXIT_INTERNAL)
    return 0


def ended(name, error, code):
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
    return code
