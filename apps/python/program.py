"""How the programs beside `tessera` write files and end: exit codes, and one line on stderr."""
import errno
import os
import sys

EXIT_USAGE, EXIT_DATA, EXIT_MISSING, EXIT_IO = 64, 65, 66, 74


class ProgramError(Exception):
    """What a user reads, and the exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def temporary_name(path):
    return f"{path}.tmp.{os.getpid()}"


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


def exit_code_of(name, body):
    """The exit code of body(), whose result is printed unless it is None."""
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
    return 0


def ended(name, error, code):
    print(f"{name}: {error}", file=sys.stderr)
    return code
