"""The folder of a run: found or made, and never shared by two runs."""

from pathlib import Path

from ..errors import UserError
from ..files import write_whole
from ..options import Options
from .distributed import Ranks

__all__ = ["run_folder"]


def run_folder(options: Options, ranks: Ranks, *, fresh: bool) -> Path:
    """Return the folder of the run, made if need be; a new run never shares one with an older."""
    if options.run.resume and not options.run.no_resume_opt and not options.run.eval_checkpoint:
        path = Path(options.run.resume)
        return path if path.is_dir() else path.parent
    name = options.run.experiment or f"{options.model.model}-{options.data.dataset}"
    base = Path(options.run.output) / (f"{name}-{options.run.suffix}" if options.run.suffix else name)
    folder, error = base, None
    if ranks.first:
        try:
            folder = _free_folder(base, named=bool(options.run.experiment)) if fresh else base
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / ".writable", lambda beside: beside.touch())
            (folder / ".writable").unlink()
        except OSError as problem:
            error = f"--output: cannot write to {str(folder)!r} ({problem.strerror}); name another folder."
        except UserError as problem:
            error = str(problem)
    folder, error = ranks.share((str(folder), error))
    if error:
        raise UserError(error)
    return Path(folder)


def _free_folder(base: Path, *, named: bool) -> Path:
    def taken(folder: Path) -> bool:
        return any(folder.glob("*.pth.tar"))

    if named and taken(base):
        raise UserError(f"--experiment: {str(base)!r} holds a run; continue it with --resume, or choose another name.")
    folder, number = base, 1
    while taken(folder):
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder
