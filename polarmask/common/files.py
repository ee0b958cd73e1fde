"""Files that are written as a whole or not at all."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

# .NAME.PROCESS-NUMBER.polarmask.SUFFIX; hidden, so that a program that lists a folder's images leaves it out.
TEMPORARY = re.compile(r"\..*\.(\d+)-\d+\.polarmask(\.[^.]*)?")
NAME_LENGTH = (
    40  # characters of the file's own name that its temporary name keeps, within the 255 bytes of file systems
)

_numbers = count()
_in_progress: set[Path] = set()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path`` that becomes ``path`` when the block ends without an error.

    A reader of ``path`` never sees half of a file, and a failure leaves what was there before. The temporary name has
    the suffix of ``path``, from which Pillow and matplotlib derive the format.

    Parameters
    ----------
    path : Path
        Its folder is made where it does not exist.

    Raises
    ------
    OSError
        With ``path``, where the folder is read-only, the disk is full, or ``path`` is a folder.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with writing(path) as temporary:
    ...     _ = temporary.write_text("all of it")
    >>> path.read_text()
    'all of it'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.stem[:NAME_LENGTH]}.{os.getpid()}-{next(_numbers)}.polarmask{path.suffix}"
    temporary = path.with_name(name)
    _in_progress.add(temporary)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        with suppress(OSError):  # the new name as well; the file is there, also where a file system cannot do this
            _flush(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            error.filename = str(path)
            del error.filename2  # only deleting it takes the second path out of the message
        raise
    finally:
        _in_progress.discard(temporary)


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes bytes, perhaps in pieces, to a file that is there as a whole or not at all; see :func:`writing`.

    Raises
    ------
    OSError
        With the path, where the folder is read-only or the disk is full.
    """
    with writing(path) as temporary, temporary.open("wb") as file:
        file.writelines([data] if isinstance(data, bytes) else data)


def remove_stale(folder: Path) -> None:
    """Removes the temporary files in a folder that a killed process left; not those of running ones, nor sub-folders.

    Files with other names than :func:`writing` gives are left alone.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = TEMPORARY.fullmatch(path.name)
        if match and path not in _in_progress and not _runs_elsewhere(int(match[1])) and path.is_file():
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _runs_elsewhere(process: int) -> bool:
    """Returns true if a process other than this one has that number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
