"""The folder of a run: found or made, and never shared by two runs.

A lock in the folder is held as long as the run lasts. It is the system's own, so that it ends with the process.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from ..files import clear_temporary, reason
from ..recipe import Options
from .distributed import Ranks
from .saving import ENDING, clear_unfinished, find_state, is_unfinished

__all__ = ["CONVERTED", "continues", "run_folder"]

CONVERTED = "converted.safetensors"
"""The file of a converted network in the folder of its run."""
# The loading processes of a run that was killed notice it after five seconds; with older versions of filelock they
# hold its lock until then.
PATIENCE = 8.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def run_folder(
    options: Options, ranks: Ranks, *, fresh: bool, say: Callable[[str], object] = lambda _: None
) -> Iterator[Path]:
    """Give the folder of a run, made if need be, and keep other runs out of it while the context is open.

    Args:
        options: of the run.
        ranks: its processes, of which the first one holds the lock.
        fresh: whether a new run begins; it never writes into the folder of an older one.
        say: prints a line, here when the folder got a number behind its name.

    Raises:
        UserError: for a folder that is in use, holds a run, or can't be written.
    """
    folder, lock, error = None, None, None
    if ranks.first:
        try:
            folder, lock = _continued(options, say) if continues(options) else _own(options, fresh=fresh, say=say)
            clear_temporary(folder)
            clear_unfinished(folder)
        except OSError as problem:
            place = problem.filename or options.run.output
            error = f"--output: cannot write to {str(place)!r} ({reason(problem)}); name another folder."
        except UserError as problem:
            error = str(problem)
    with lock or ExitStack():
        folder, error = ranks.share((str(folder), error))
        if error:
            raise UserError(error)
        yield Path(folder)


def continues(options: Options) -> bool:
    """Say whether a run goes on in the folder of the one that --resume names."""
    return bool(options.run.resume and not options.run.no_resume_opt and not options.run.eval_checkpoint)


def _continued(options: Options, say: Callable[[str], object]) -> tuple[Path, ExitStack]:
    """Return the folder of the run that --resume names, and its lock."""
    path = Path(options.run.resume)
    if not path.exists():
        raise UserError(f"--resume: no file or folder {str(path)!r}; give a checkpoint or the folder of a run.")
    folder = path if path.is_dir() else path.parent
    lock = _lock(folder, say, patience=PATIENCE)
    if lock is None:
        raise UserError(
            f"--resume: {str(folder)!r} is in use by another process, which trains or evaluates there; wait for its "
            "end or stop it (to evaluate meanwhile, name a checkpoint with --eval_checkpoint instead)."
        )
    return folder, lock


def _own(options: Options, *, fresh: bool, say: Callable[[str], object]) -> tuple[Path, ExitStack]:
    """Return the folder that the options name, with a number if that is taken and no name was given, and its lock."""
    name, named = options.run.experiment or f"{options.model.model}-{options.data.dataset}", options.run.experiment
    base = Path(options.run.output) / (f"{name}-{options.run.suffix}" if options.run.suffix else name)
    folder, number = base, 0
    while True:
        lock = None
        if not (fresh and _holds_run(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder, say, patience=PATIENCE if named else 0)
            # another run may have come and gone since the first look
            if lock is not None and not (fresh and _holds_run(folder)):
                break
        if lock is not None:
            lock.close()
        if named:
            raise UserError(_occupied(base) if fresh and _holds_run(base) else _in_use(base))
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    if number:
        say(f"{base} is another run's; this one writes to {folder}")
    return folder, lock


def _in_use(folder: Path) -> str:
    return f"--experiment: {str(folder)!r} is in use by another process; choose another name, or wait for its end."


def _occupied(folder: Path) -> str:
    """Say what to do with a folder that holds a run, which depends on whether the run can go on."""
    if (folder / CONVERTED).exists():
        return f"--experiment: {str(folder)!r} holds a converted network; choose another name, or delete the folder."
    try:
        find_state(folder, lambda _: None)
    except UserError:
        return (
            f"--experiment: {str(folder)!r} holds checkpoints, but none that a run can go on from; choose another "
            "name, or delete the folder."
        )
    return f"--experiment: {str(folder)!r} holds a run; continue it with --resume {folder}, or choose another name."


def _holds_run(folder: Path) -> bool:
    found = (*folder.glob(f"*{ENDING}"), *folder.glob(CONVERTED))
    return any(not is_unfinished(path) for path in found)


def _lock(folder: Path, say: Callable[[str], object], *, patience: float) -> ExitStack | None:
    """Lock a folder until the stack is closed; None where another process keeps its lock for `patience` seconds."""
    held = ExitStack()
    try:
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=patience)
        held.callback(lock.release)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        say(f"{folder} lies on a file system without locks: take care that no other run uses it meanwhile")
    return held
