"""The command line: it reads arguments and prints results; the library does the work."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings

import click

import poscuda_fast
from poscuda_fast.cli import editing, looking, printing
from poscuda_fast.cli.help_pages import HINT, Command, Group, SystemRefusalError
from poscuda_fast.cli.wording import of_command
from poscuda_fast.errors import PoscudaError, has_stopped
from poscuda_fast.system_errors import is_of_system, sentence
from poscuda_fast.text import message as shown

PROGRAM = "poscuda"
COMPLETE_VARIABLE = f"_{PROGRAM}_COMPLETE".upper()  # click's own name for it
REFUSED, STOPPED, UNTOLD, INTERRUPTED = 2, 3, 4, 130
_REFUSALS = (
    PoscudaError,
    ValueError,
    TypeError,
    ImportError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)


def main() -> None:
    """Run the command line and exit with a documented code."""
    printing.begin()
    warnings.showwarning = _warn  # type: ignore[assignment] # its last two arguments are not needed
    code = _run()
    reason = printing.untold()
    if reason and code in (0, 1):
        _tell(f"the run is finished, but its result could not be printed ({reason}).")
        code = code or UNTOLD
    sys.exit(code)


def _run() -> int:
    """Run a command; its exit code. Whatever is raised is told in a sentence."""
    if COMPLETE_VARIABLE in os.environ:
        from poscuda_fast.cli import bash  # noqa: F401, PLC0415 - click knows it from then on
    try:
        code = cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        printing.say(shown.getvalue().rstrip("\n"), err=True)
        if isinstance(error, click.NoSuchOption) and any(one[:1] == "-" and os.path.lexists(one) for one in sys.argv):
            printing.say('A file whose name begins with "-" stands behind "--", the last of all.', err=True)
        return REFUSED
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except SystemRefusalError as refusal:
        return _refused_or_stopped(refusal.error, str(refusal))
    except Exception as error:  # noqa: BLE001 - the last who can tell it
        said = sentence(error) if isinstance(error, OSError) and is_of_system(error) else str(error)
        return _refused_or_stopped(error, said)
    return code if isinstance(code, int) else 0


def _refused_or_stopped(error: Exception, said: str) -> int:
    """Tell an error; the exit code."""
    # A system's error may come in the middle of something; what this library says of a disk comes before.
    is_ours = isinstance(error, OSError) and not is_of_system(error)
    if has_stopped(error) or not (is_ours or isinstance(error, _REFUSALS)):
        return _stopped(error, said)
    _tell(said or type(error).__name__)
    return REFUSED


def _interrupted() -> int:
    _tell("interrupted; run the same command again to finish.")
    return INTERRUPTED


def _stopped(error: Exception, said: str) -> int:
    """Tell an error that may come in the middle of a run."""
    if isinstance(error.__context__, KeyboardInterrupt):  # click could not end its line
        return _interrupted()
    if isinstance(error, MemoryError):
        _tell(f"there is too little memory{said and f' ({said})'}; close other programs, or use fewer --threads.")
    elif isinstance(error, OSError | PoscudaError):
        _tell(said or type(error).__name__)
    elif isinstance(error, RuntimeError) and "start new thread" in said:
        _tell(f"the system gives this process no more threads ({said}); end other programs, or use fewer --threads.")
    else:
        _tell(
            f"stopped by an error that was not foreseen: {type(error).__name__}: {said or 'without a message'} "
            f"({_place_of(error)}). If it comes again, please report it."
        )
    printing.say("Run the same command again to finish.", err=True)
    return STOPPED


def _place_of(error: Exception) -> str:
    """The innermost line of this package in an error's traceback."""
    own = [
        (frame.f_globals["__name__"], line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(poscuda_fast.__name__)
    ]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else "outside of this package"


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """Tell a warning of this library as a sentence, and any other as Python does."""
    if issubclass(category, poscuda_fast.LabelWarning | poscuda_fast.UnprotectedWarning):
        printing.say(f"Warning: {shown(of_command(str(message)))}", err=True)
    else:
        printing.say(warnings.formatwarning(message, category, filename, lineno).rstrip("\n"), err=True)


def _tell(text: str) -> None:
    printing.say(f"{PROGRAM}: {shown(of_command(text))}", err=True)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's order
    if wanted and not context.resilient_parsing:
        printing.say(f"{PROGRAM}, version {poscuda_fast.__version__}")
        context.exit()


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Make audio data sets unlearnable in place, prove it, and undo it with the key."""
    if context.invoked_subcommand is None:
        printing.say(HINT)


@click.command(cls=Command, short_help="Complete commands and options in your shell.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the code that makes SHELL complete commands, options, values and paths.

    Nothing is written. Put the line for your shell into its start-up file:
    ~/.bashrc, ~/.zshrc (after compinit) or ~/.config/fish/config.fish.

    \b
    Examples:
      eval "$(poscuda completion bash)"
      eval "$(poscuda completion zsh)"
      poscuda completion fish | source
    """
    from click import shell_completion  # noqa: PLC0415

    maker = shell_completion.get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"SHELL is {shell!r}, which this version of click does not know; upgrade click.")
    printing.say(maker(cli, {}, PROGRAM, COMPLETE_VARIABLE).source())


for command in (
    looking.demo, editing.keygen, editing.protect, editing.verify, editing.restore, looking.evaluate, looking.report,
    looking.inspect, looking.commit, editing.drop_undo, looking.doctor, completion,
):  # fmt: skip
    cli.add_command(command)
