"""How the programs beside `tessera` end: exit codes, and one line on stderr."""
import sys

EXIT_USAGE, EXIT_DATA, EXIT_MISSING, EXIT_IO = 64, 65, 66, 74


class ProgramError(Exception):
    """What a user reads, and the exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def exit_code_of(name, body):
    """The exit code of body(), whose result is printed unless it is None."""
    try:
        result = body()
    except ProgramError as error:
        return ended(name, error, error.code)
    except ImportError as error:
        return ended(name, f"{error}; install with: pip install -r apps/python/requirements.txt", EXIT_MISSING)
    except OSError as error:
        return ended(name, error, EXIT_IO)
    if result is not None:
        print(result)
    return 0


def ended(name, error, code):
    print(f"{name}: {error}", file=sys.stderr)
    return code
