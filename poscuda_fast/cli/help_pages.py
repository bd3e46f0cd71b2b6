"""The layout of `--help`: options in sections, and on the first page what concerns every command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from poscuda_fast.cli.printing import say
from poscuda_fast.system_errors import is_of_system, sentence

# An option that is not named here appears under "Options".
SECTIONS = {
    "Labels": ("labels_from", "label"),
    "An array SRC": ("labels_file", "classes_file", "lengths_file", "sample_rate"),
    "The mark": ("strength", "snr"),
    "The mark, by the paper": ("paper", "patch", "every", "patches", "taps", "blur", "identity"),
    "How it runs": ("backend", "threads"),
    "The trainings": ("clips", "seconds", "models", "epochs", "seeds", "attacks"),
    "What it prints": ("as_json", "quiet"),
}
_SECTION_OF = {name: section for section, names in SECTIONS.items() for name in names}

EPILOG = """\b
Examples:
  poscuda demo
  poscuda keygen my.key
  poscuda protect recordings/ protected/ --key my.key
  poscuda verify protected/ --key my.key
  poscuda protect recordings/ --in-place --key my.key
  poscuda restore recordings/ --key my.key

\b
Files beside what is protected, and never in it:
  NAME.poscuda       the sidecar: what undo needs, or how a copy was made, sealed with the key
  NAME.poscuda.json  the manifest: labels, recipe, hashes before and after; no key and no marks

\b
Exit codes:
  0    done
  1    verify, doctor or demo found a problem
  2    refused: wrong arguments or unusable input; nothing was written
  3    stopped after it had begun (full disk, failed write, changed file), or by an unforeseen error; run the same
       command again to finish
  4    done, but the result could not be printed (full disk); a closed pipe or stream changes no exit code
  5    done, but audio files are left unprotected, and listed: protect --skip-unusable, verify
  130  interrupted; run the same command again to finish

\b
Environment:
  NUMBA_CACHE_DIR         the folder for compiled kernels, used if there are no native ones
  POSCUDA_NO_NATIVE       set at installation: leave the native kernels out
  POSCUDA_REQUIRE_NATIVE  set at installation: fail if the native kernels cannot be built

"poscuda COMMAND --help" has examples for each command, "poscuda completion --help" explains shell completion.
"""


def _show_help(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's order
    if wanted and not context.resilient_parsing:
        say(context.get_help())
        context.exit()


class _Page(click.Command):
    """A command whose help is printed like all else."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option --help."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


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
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options section by section, in the order in which they were declared."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Options", *SECTIONS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):  # the text above describes arguments
                sections[_SECTION_OF.get(parameter.name or "", "Options")].append(record)
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
    """A group of such commands."""

    command_class = Command
