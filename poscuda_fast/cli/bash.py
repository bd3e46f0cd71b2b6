"""Completion in bash, for which a colon ends a word: the parts of `csv:FILE` and `regex:RE` are one word again."""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from poscuda_fast.cli.completing import LABEL_SOURCES

_KINDS = [source.removesuffix(":") for source in LABEL_SOURCES if source.endswith(":")]


@add_completion_class
class Bash(BashComplete):
    """Joins the words around a colon, and offers only what comes behind it, since bash keeps the rest."""

    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        words = split_arg_string(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
        before, last = words[1:at], words[at] if at < len(words) else ""
        if last == ":" and before and before[-1] in _KINDS:
            self._kept, last = f"{before.pop()}:", ""
        elif before[-1:] == [":"] and before[-2:-1] and before[-2] in _KINDS:
            self._kept = f"{before[-2]}:"
            del before[-2:]
        return before, self._kept + last

    def format_completion(self, item: CompletionItem) -> str:
        """A line for the script in bash."""
        return f"{item.type},{item.value.removeprefix(self._kept)}"
