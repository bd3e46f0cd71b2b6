"""The command line: it reads arguments and prints results; the library does the work."""

from __future__ import annotations

import sys

import click

import poscuda_fast
from poscuda_fast.cli import editing, looking
from poscuda_fast.cli.help_pages import EPILOG, Group
from poscuda_fast.errors import PoscudaError

PROGRAM = "poscuda"
COMPLETE_VARIABLE = f"_{PROGRAM}_COMPLETE".upper()  # click's own name for it
REFUSED, STOPPED, INTERRUPTED = 2, 3, 130
_REFUSALS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)


def main() -> None:
    """Run the command line and exit with a documented code."""
    try:
        code = cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(REFUSED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("poscuda: interrupted; run the same command again to finish.", err=True)
        sys.exit(INTERRUPTED)
    except (PoscudaError, ValueError, TypeError, ImportError, *_REFUSALS) as error:
        click.echo(f"poscuda: {error}", err=True)
        sys.exit(REFUSED)
    except (OSError, MemoryError) as error:
        click.echo(f"poscuda: {error or type(error).__name__}\nRun the same command again to finish.", err=True)
        sys.exit(STOPPED)
    sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(poscuda_fast.__version__, prog_name=PROGRAM)
def cli() -> None:
    """Make audio data sets unlearnable in place, prove it, and undo it with the key."""


@cli.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the code that makes SHELL complete commands, options and paths.

    Nothing is written. Put the line for your shell into its start-up file: ~/.bashrc, ~/.zshrc (after compinit) or
    ~/.config/fish/config.fish.

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
    click.echo(maker(cli, {}, PROGRAM, COMPLETE_VARIABLE).source())


for command in (
    editing.keygen, editing.protect, editing.verify, editing.restore, editing.drop_undo,
    looking.evaluate, looking.report, looking.inspect, looking.demo, looking.doctor,
):  # fmt: skip
    cli.add_command(command)
