"""What can go wrong, as a person should read it: every message says what, where and how to mend it.

CorrigibleError
├── BadConfig      config.toml or the environment
├── BadInput       a payload, a data file, a feedback that cannot be used
│   └── BadAction  an action outside its catalogue
├── NotFound       an id nobody knows
├── Unavailable    a part that is needed is not there now (broker, worker, daemon, port)
└── Corrupt        a file that is not what its hash or its format says
"""

from __future__ import annotations


class CorrigibleError(Exception):
    """The base of all errors that are shown to people as one sentence, without a stack trace."""


class BadConfig(CorrigibleError):
    """The configuration cannot be used."""


class BadInput(CorrigibleError):
    """Data from outside cannot be used."""


class BadAction(BadInput):
    """The action is not in the catalogue."""


class NotFound(CorrigibleError):
    """Nobody knows this id."""


class Unavailable(CorrigibleError):
    """A part that is needed is not there now."""


class Unwritable(Unavailable):
    """The disk takes nothing now: the same again may be stored later."""


class Corrupt(CorrigibleError):
    """A file is not what it says it is."""


def first(error: BaseException) -> BaseException:
    """The first real error of a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
