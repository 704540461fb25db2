"""What both entry scripts do before their work: read `.env`, tidy the command line, run Hydra.

Stands outside the way of the data: nothing in `emotion/` imports it.
"""

import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import hydra
from dotenv import load_dotenv
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.text import Text
from rich.tree import Tree

from emotion import REPOSITORY
from emotion.errors import UserError

CONF_DIR = REPOSITORY / "conf"


OmegaConf.register_new_resolver("repository", lambda: str(REPOSITORY), replace=True)

# conf/hydra/launcher changes what a plugin's own option of that name says. Hydra merges the two, as
# is meant, and warns.
warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema")


def entry(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a task the entry point of a script: Hydra composes its config, mistakes end in a line.

    Args:
        config_name: the primary config in `conf/`, without suffix.

    Returns:
        A decorator. The decorated function takes no arguments, reads `sys.argv`, and leaves with
        status 1 after one line on stderr where the command line, the config or the data are at
        fault. `HYDRA_FULL_ERROR=1` shows the stack trace instead.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @wraps(task)
        def main() -> None:
            load_dotenv(REPOSITORY / ".env")
            sys.argv[1:] = quote_integer_options(sys.argv[1:])
            in_one_line = partial(mistakes_in_one_line, os.environ.get("HYDRA_FULL_ERROR") == "1")

            @wraps(task)
            def checked_task(cfg: DictConfig) -> Any:
                with in_one_line():  # here too: Hydra adds a line to what leaves a job
                    check_value_types(config_name, HydraConfig.get().overrides.task)
                    return task(cfg)

            with in_one_line(), full_errors():
                hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(
                    checked_task
                )()

        return main

    return decorate


def as_option(value: Any) -> str:
    """Write a parsed value as the name of a group's option; numbers and truth values in quotes."""
    if isinstance(value, QuotedString):
        return value.with_quotes()
    return f"'{str(value).lower()}'" if isinstance(value, int | float) else str(value)


@contextmanager
def mistakes_in_one_line(with_trace: bool) -> Iterator[None]:
    """Leave with status 1 and one line on stderr where the user can mend what went wrong."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if with_trace:
            raise
        sys.exit(f"error: {one_line(error)}")
    except OSError as error:
        if with_trace or error.filename is None:  # else a folder that can't be written, or such
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@contextmanager
def full_errors() -> Iterator[None]:
    """Let Hydra raise what goes wrong, instead of printing it in its own way."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def quote_integer_options(arguments: Sequence[str], conf_dir: Path = CONF_DIR) -> list[str]:
    """Quote the integers that are given as options of a config group.

    Hydra reads the 5 of `interval=5` as a number and refuses it as the name of an option;
    `interval='5'` it takes. What is a group is read off the folders of `conf_dir`.

    Args:
        arguments: the command line, without the program's name.
        conf_dir: the folder whose subfolders are the config groups.

    Returns:
        The same arguments, `interval=5,10` turned to `interval='5','10'`; `range()` and `choice()`
        sweeps over a group are written out as such a list.
    """
    parser = OverridesParser.create()
    quoted = []
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException:  # a flag such as -m, or a mistake that Hydra will name
            quoted.append(argument)
            continue
        if override.is_discrete_sweep():
            values = list(override.sweep_iterator())
        else:
            values = [override.value()]
        is_group = (conf_dir / override.key_or_group).is_dir()
        if is_group and any(isinstance(value, int | float) for value in values):
            options = ",".join(as_option(value) for value in values)
            argument = f"{argument.split('=', 1)[0]}={options}"
        quoted.append(argument)
    return quoted


def check_value_types(config_name: str, overrides: Sequence[str]) -> None:
    """Refuse a value on the command line that is of another kind than the one it replaces.

    YAML has no types of its own, so the values in `conf/` serve as the schema: where a number
    stands, a number must be given. A null may be replaced by anything, and may replace what is no
    number or switch. What an experiment sets does not count: it may itself put one kind for
    another, false for a text.

    Args:
        config_name: the primary config.
        overrides: the job's overrides, as Hydra has parsed them.

    Raises:
        UserError: names the key, the value given and the one that stands in the config.
    """
    parser = OverridesParser.create()
    parsed = parser.parse_overrides(list(overrides))
    groups = [o for o in parsed if (CONF_DIR / o.key_or_group).is_dir()]
    values = [o for o in parsed if o not in groups and not (o.is_add() or o.is_delete())]
    if not values:
        return
    standard = hydra.compose(
        config_name, [o.input_line for o in groups if o.key_or_group != "experiment"]
    )
    for override in values:
        default = OmegaConf.select(standard, override.key_or_group, throw_on_missing=False)
        value = OmegaConf.create({"value": override.value()}).value
        if not may_replace(value, default):
            raise UserError(
                f"{override.input_line}: {override.key_or_group} takes a {kind(default)} "
                f"such as {default}, not the {kind(value)} {value}"
            )


def may_replace(value: Any, default: Any) -> bool:
    """Tell whether a value is of a kind that can stand where a default stood."""
    if default is None:
        return True
    if kind(default) == "text":  # which anything plain is, or stands for
        return kind(value) not in ("list", "mapping")
    if kind(default) == "number":
        return kind(value) in ("number", "whole number")
    return kind(value) == kind(default) or (value is None and kind(default) in ("list", "mapping"))


def kind(value: Any) -> str:
    """Name the kind of a config value."""
    kinds = {
        type(None): "null",
        bool: "switch (true or false)",
        int: "whole number",
        float: "number",
        str: "text",
        list: "list",
        ListConfig: "list",
        dict: "mapping",
        DictConfig: "mapping",
    }
    return kinds[type(value)]


def one_line(error: Exception) -> str:
    """Put what Hydra or OmegaConf has to say into one line that names the remedy."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={option}: no such option, {group} has: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: it is no KEY=VALUE that Hydra can read; blanks, brackets and the "
            "like need quotes of their own: 'KEY=\"VALUE\"'"
        )
    if isinstance(error.__cause__, UserError):  # raised by what a `_target_` names
        error = error.__cause__
    message = str(error)
    if chosen := re.match(r"In 'experiment/(\w+)': Could not override '(\w+)'", message):
        return (
            f"experiment={chosen[1]} chooses a {chosen[2]}, which is for train.py: it makes the "
            "stacks too. Here, say the experiment's data=, sampling and face alone"
        )
    if error.__cause__ is not None and not isinstance(error, UserError):
        message += f" ({str(error.__cause__).splitlines()[0]})"
    # which would add a key that nobody reads, where one was mistyped
    message = re.sub(r"\s+To append to your (config|default list) use \S+", "", message)
    return " ".join(message.split())


def describe_data(cfg: DictConfig) -> str:
    """Name the data set, and what has to be known of it, for the head of a run."""
    return f"data: {cfg.data.name}" + (f" ({cfg.data.notice})" if cfg.data.notice else "")


def config_tree(cfg: DictConfig) -> Tree:
    """Draw a composed config, a line or two for each of its parts; objects by their names alone."""
    tree = Tree("config")
    plain = OmegaConf.to_container(cfg, resolve=True)
    settings = {key: value for key, value in plain.items() if not isinstance(value, dict)}
    for name, part in {"": settings, **plain}.items():
        if isinstance(part, dict):
            values = []
            for key, value in part.items():
                if isinstance(value, dict) and "_target_" in value:
                    values.append(key)
                elif key != "_target_":  # written as one would type it
                    values.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
            tree.add(Text.assemble((name + " " if name else "", "bold"), ", ".join(values)))
    return tree
