"""The layout of `--help`, which fits a screen, and of `--help-all`, which has everything, with options in sections.

The docstring of a command is its help; what follows a form feed is for --help-all alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from pathlib import Path

import click

from poscuda_fast.cli.printing import say
from poscuda_fast.system_errors import is_of_system, sentence

# The options that --help shows.
FIRST = {
    "protect": ("key_file", "in_place", "labels_from", "strength", "dry_run"),
    "verify": ("key_file", "source"),
    "restore": ("key_file", "without_sidecar"),
    "drop-undo": ("key_file", "yes"),
    "commit": ("key_file", "out"),
    "evaluate": ("key_file", "out"),
    "report": ("key_file", "out"),
    "inspect": ("strength", "as_json"),
    "demo": ("out",),
    "doctor": ("as_json",),
}
# In --help-all, an option that is not named here appears under "Options".
SECTIONS = {
    "Labels": ("labels_from", "label"),
    "An array SRC": ("labels_file", "classes_file", "lengths_file", "sample_rate"),
    "The mark": ("strength", "snr"),
    "The mark, by the paper": ("paper", "patch", "every", "patches", "taps", "blur", "identity"),
    "How it runs": ("backend", "threads"),
    "The trainings": ("clips", "seconds", "models", "epochs", "seeds", "attacks"),
    "What it prints": ("as_json", "quiet"),
}
_ALL = f"{__name__}.all"  # in the context: whether everything is shown
_SECTION_OF = {name: section for section, names in SECTIONS.items() for name in names}

HINT = """Make audio data sets unlearnable, and undo it with the key. Type one of these:
  poscuda demo                                          see it at work, in seconds
  poscuda keygen my.key                                 make your key, once
  poscuda protect recordings/ protected/ --key my.key   protect a copy of a folder
  poscuda --help                                        see all commands"""

MORE = """\b
Show a command:                      poscuda COMMAND --help
Files, exit codes and environment:   poscuda --help-all"""

EPILOG = """\b
Files beside what is protected, never in it:
  NAME.poscuda       the sidecar: what undo needs, or how a copy was made,
                     sealed with the key
  NAME.poscuda.json  the manifest: labels, recipe, hashes before and after;
                     no key and no marks

\b
Exit codes:
  0    done
  1    verify, doctor or demo found a problem
  2    refused: wrong arguments or unusable input; nothing was written
  3    stopped after it had begun (full disk, failed write, changed file), or
       by an unforeseen error; run the same command again to finish
  4    done, but the result could not be printed (full disk); a closed pipe or
       stream changes no exit code
  5    done, but audio files are left unprotected, and listed:
       protect --skip-unusable, verify
  130  interrupted; run the same command again to finish

\b
Environment:
  NUMBA_CACHE_DIR         the folder for compiled kernels, used if there are no
                          native ones
  POSCUDA_NO_NATIVE       set at installation: leave the native kernels out
  POSCUDA_REQUIRE_NATIVE  set at installation: fail if the native kernels
                          cannot be built"""


def _show_help(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's order
    if wanted and not context.resilient_parsing:
        context.meta[_ALL] = parameter.name == "help_all"
        say(context.get_help())
        context.exit()


class _Page(click.Command):
    """A command with a short help and a whole one, printed like all else."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, --help-all included."""
        return [*super().get_params(ctx), self._help_all]

    @functools.cached_property
    def _help_all(self) -> click.Option:
        return click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_help,
            help="Show all options, and more about them.",
        )  # fmt: skip

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option --help."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the docstring, or what is before its form feed."""
        brief, _, rest = inspect.cleandoc(self.help or "").partition("\f")
        for text in (brief, rest) if ctx.meta.get(_ALL) else (brief,):
            if text.strip():
                formatter.write_paragraph()
                with formatter.indentation():
                    formatter.write_text(text.strip("\n"))


class SystemRefusalError(Exception):
    """Carries what the system refused past click, which takes every closed pipe for that of its output.

    Attributes
    ----------
    error : OSError
        What the system said.
    """

    def __init__(self, error: OSError, given: Sequence[Path]) -> None:
        super().__init__(sentence(error, given))
        self.error = error


class Command(_Page):
    """A command that shows its first options, or all of them in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in the order in which they were declared."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Options", *SECTIONS)}
        first = (*FIRST.get(self.name or "", ()), "help_all")
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option):  # the text above describes arguments
                continue
            if ctx.meta.get(_ALL):
                sections[_SECTION_OF.get(parameter.name or "", "Options")].append(record)
            elif parameter.name in first:
                sections["Options"].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; SystemRefusalError, with the paths that were given, if the system refuses something."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if not is_of_system(error):
                raise
            given = [value for value in ctx.params.values() if isinstance(value, Path)]
            raise SystemRefusalError(error, given) from None


class Group(_Page, click.Group):
    """A group of such commands, in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands' names."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, and of options only with --help-all."""
        if ctx.meta.get(_ALL):
            click.Command.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what concerns every command, or where it is to be read."""
        formatter.write_paragraph()
        formatter.write_text(EPILOG if ctx.meta.get(_ALL) else MORE)
