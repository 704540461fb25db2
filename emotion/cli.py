"""Entry points of the scripts: compose the config with Hydra, check it, end mistakes in one line.

Imports little, so that `--help` is fast.
"""

import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any

from emotion.errors import MISSING_PACKAGE, UserError, is_machine_fault

try:
    import hydra
    from dotenv import load_dotenv
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from rich.text import Text
    from rich.tree import Tree

    from emotion.config import SCHEMAS, check_config, did_you_mean, known_keys
except ModuleNotFoundError as error:
    sys.exit(MISSING_PACKAGE.format(error.name))

from emotion import REPOSITORY
from emotion.escape import for_terminal
from emotion.stopping import is_stopped

PACKAGED_CONF_DIR = Path(__file__).parent / "conf"  # the build of a wheel copies conf/ there
CONF_DIR = PACKAGED_CONF_DIR if PACKAGED_CONF_DIR.is_dir() else REPOSITORY / "conf"


def project_folder() -> Path:
    """Return the folder of `.env`, caches and outputs.

    It is the repository, or the current folder where the package is installed.
    """
    return Path.cwd() if CONF_DIR == PACKAGED_CONF_DIR else REPOSITORY


OmegaConf.register_new_resolver("repository", lambda: str(project_folder()), replace=True)

OWN_OPTIONS = {  # group -> what else there is, for the option that was asked for
    "model": "; any image model of timm is model=timm model.backbone={}",
    "interval": "; others are interval.frames={}, a multiple of sampling.interval",
    "data": "; one of your own is a file in conf/data, or in data/ of the folder of --config-dir",
}

# conf/hydra/launcher changes values of a plugin's own option. Hydra merges the two and warns.
warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema")


def entry(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a task the entry point of a script that reads `sys.argv`, as a decorator.

    It exits with status 1 and one line on stderr if the command line, the config or the data are
    wrong (`HYDRA_FULL_ERROR=1` shows the stack trace instead).
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @wraps(task)
        def main() -> None:
            load_dotenv(project_folder() / ".env")
            logging.raiseExceptions = False  # a full disk must not print a trace for each line
            sys.argv[1:] = quote_integer_options(sys.argv[1:])
            with_trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
            guard = nullcontext if with_trace else partial(mistakes_in_one_line, config_name)

            @wraps(task)
            def checked_task(cfg: DictConfig) -> Any:
                if is_stopped():  # between two cells, where a destructor swallowed the exception
                    raise KeyboardInterrupt
                with guard():  # here too, because Hydra adds a line to errors that leave a job
                    check_config(config_name, cfg)
                    return task(cfg)

            hydra_main = hydra.main(str(CONF_DIR), config_name, version_base="1.3")
            with guard(), full_errors():
                hydra_main(checked_task)()

        return main

    return decorate


@contextmanager
def mistakes_in_one_line(config_name: str | None = None) -> Iterator[None]:
    """Exit with status 1 and one line on stderr after an error of the user or of the machine."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {for_terminal(one_line(error, config_name))}")
    except ModuleNotFoundError as error:  # of a package that is imported when it is first needed
        sys.exit(MISSING_PACKAGE.format(error.name))
    except BrokenProcessPool:  # of hydra/launcher=joblib
        sys.exit(
            "error: a worker process died, for example for lack of memory; the same command with "
            "the same sweep=NAME continues the sweep"
        )
    except (OSError, MemoryError) as error:
        path, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        line = ": ".join(filter(None, (path and os.fsdecode(path), reason or "out of memory")))
        if is_machine_fault(error):
            line += "; what was finished is kept, and the same command can be run again"
        elif path is None:  # else a folder that is not writable, or such
            raise
        sys.exit(f"error: {for_terminal(line)}")


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Exit with status 1 on an exception; Hydra would only warn about one of a callback."""
    try:
        with mistakes_in_one_line():
            yield
    except Exception:
        if not is_stopped():  # else a consequence
            traceback.print_exc()
        sys.exit(1)


@contextmanager
def full_errors() -> Iterator[None]:
    """Make Hydra raise errors instead of printing them."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def quote_integer_options(arguments: Sequence[str], conf_dir: Path = CONF_DIR) -> list[str]:
    """Quote integers that are given as options of a config group, a subfolder of `conf_dir`.

    Hydra parses the 5 of `interval=5` as a number and refuses it as the name of an option. So
    `interval=5,10` becomes `interval='5','10'`, and so do `range()` and `choice()` over a group.
    """

    def as_option(value: Any) -> str:
        text = value.text if isinstance(value, QuotedString) else str(value)
        return f"'{text.lower() if isinstance(value, bool) else text}'"

    parser = OverridesParser.create()
    quoted = []
    for argument in arguments:
        with suppress(HydraException):  # a flag such as -m, or a mistake that Hydra will report
            override = parser.parse_override(argument)
            is_sweep = override.is_discrete_sweep()
            values = list(override.sweep_iterator()) if is_sweep else [override.value()]
            is_number = [isinstance(value, int | float) for value in values]
            if any(is_number) and (conf_dir / override.key_or_group).is_dir():
                argument = f"{argument.split('=', 1)[0]}={','.join(map(as_option, values))}"
        quoted.append(argument)
    return quoted


def one_line(error: Exception, config_name: str | None = None) -> str:
    """Write an error of ours, Hydra's or OmegaConf's in one line that names the remedy.

    A key of the primary config `config_name` is suggested for a mistyped one.
    """
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        options = sorted(error.options, key=lambda name: (int(name) if name.isdigit() else 0, name))
        hint = did_you_mean(option, options) + OWN_OPTIONS.get(group, "").format(option)
        return f"{group}={option} is no option, {group} has: {', '.join(options)}{hint}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: Hydra cannot parse it as KEY=VALUE; a value with blanks or "
            "brackets needs quotes of its own: 'KEY=\"VALUE\"'"
        )
    if isinstance(error.__cause__, UserError):  # raised by the class of a `_target_`
        error = error.__cause__
    message = str(error)
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", message):
        return (
            f"{several[1]} has several values: add -m to sweep over them; a list is written "
            f"'{several[1]}=[{several[2]}]'"
        )
    if missing := re.search(r"Missing mandatory value: (\S+)", message):
        return f"{missing[1]} has no value: give it, {missing[1]}=VALUE"
    if chosen := re.match(r"In 'experiment/(\w+)': Could not override '(\w+)'", message):
        return (
            f"experiment={chosen[1]} chooses a {chosen[2]} and is for train.py, which makes the "
            "stacks too; here, set the experiment's data=, sampling and face keys"
        )
    if config_name and (mistyped := re.match(r"Could not override '([^']+)'", message)):
        known = known_keys(SCHEMAS[config_name])
        if mistyped[1] not in known:
            return f"{mistyped[1]} is no key or group here{did_you_mean(mistyped[1], known)}"
    if error.__cause__ is not None and not isinstance(error, UserError):
        message += f" ({str(error.__cause__).splitlines()[0]})"
    # which would add a key that nothing reads
    message = re.sub(r"\s+To append to your (config|default list) use \S+", "", message)
    return " ".join(message.split())


def describe_data(cfg: DictConfig) -> str:
    """Name the data set and its notice, for the first line of a run's log."""
    return f"data: {cfg.data.name}" + (f" ({cfg.data.notice})" if cfg.data.notice else "")


def config_tree(cfg: DictConfig) -> Tree:
    """Build a tree of a config, one or two lines per section; objects by their names alone."""
    tree = Tree("config")
    plain = OmegaConf.to_container(cfg, resolve=True)
    sections = {key: value for key, value in plain.items() if isinstance(value, dict)}
    settings = {key: value for key, value in plain.items() if key not in sections}
    for name, part in {"": settings, **sections}.items():
        values = []
        for key, value in part.items():
            if isinstance(value, dict) and "_target_" in value:
                values.append(key)
            elif key != "_target_":  # written as on the command line
                values.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
        tree.add(Text.assemble((name + " " if name else "", "bold"), ", ".join(values)))
    return tree
