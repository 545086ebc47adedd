"""The flag --config: a configuration file, its arguments, and changes of single fields.

`--config=FILE:ARGUMENTS` calls `get_config("ARGUMENTS")` of a Python file. FILE is a path, or the
name of a shipped configuration such as `pretrain`. `--config.FIELD=VALUE` changes a field.
"""

import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from absl import flags
from ml_collections import ConfigDict, config_flags

import sar_mixmae_jax
from sar_mixmae_jax.utils.command_line import (
    check_given,
    check_operands,
    fail,
    print_help_if_asked,
)
from sar_mixmae_jax.utils.errors import InputError, UserError, first_line, unknown_name

CONFIG_HELP = "configuration: FILE.py or the name of a shipped one, with arguments NAME:ARGUMENTS"
PACKAGE = "configs"
"""Package that the configuration files import each other from."""
UNKNOWN_FIELD = re.compile(r"[\w.]+(?=\\*['\"])")
"""Names quoted in an error of ml_collections: the unknown field, then the closest known one."""


def parse_config_flags(
    argv: Sequence[str],
    flag_values: flags.FlagValues,
    description: str | None,
    required: Mapping[str, str],
) -> ConfigDict:
    """Parse a command line with --config and return the configuration.

    As `parse_flags`: `--help` exits with 0, an unusable command line with 2 after one line.

    Args:
      argv: program name and arguments.
      flag_values: flags of the command, with a string flag "config".
      description: text of the help.
      required: example value of every flag that must be given, by name.
    """
    print_help_if_asked(argv, flag_values, description, required)
    try:
        source, rest = _take_config(argv)
        if not source:
            raise InputError(f"found no --config, expected --config={required['config']}")
        config = load_config(source)
        flag_values.unparse_flags()
        flag_values["config"].value = source
        command = flags.FlagValues()  # the flags of the command, and those of the fields
        command.append_flag_values(flag_values)
        delattr(command, "config")
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=command, sys_argv=rest
        )
        positional = command(rest)[1:]
        check_operands(positional, ())
        check_given(required, flag_values)
    except (KeyError, AttributeError) as error:
        fail(_unknown_field(error))
    except (flags.Error, UserError, TypeError, ValueError) as error:
        fail(error)
    flag_values.mark_as_parsed()
    flags.FLAGS.mark_as_parsed()  # absl's logging waits for the global flags, which have defaults
    return holder.value


def _take_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split a command line into the value of the last --config and everything else."""
    source, rest, words = None, [], iter(argv)
    for word in words:
        name, separator, value = word.partition("=")
        if name in ("--config", "-config"):
            source = value if separator else next(words, None)
        else:
            rest.append(word)
    return source, rest


def _unknown_field(error: Exception) -> Exception:
    """Return a readable error for a field that a configuration does not have."""
    names = UNKNOWN_FIELD.findall(str(error))
    if not names:
        return error
    hint = f"did you mean {names[1]!r}? " if len(names) > 1 else ""
    return InputError(
        f"unknown configuration field {names[0]!r}: {hint}the configuration file lists all fields"
    )


def load_config(source: str) -> ConfigDict:
    """Return the configuration that "FILE" or "FILE:ARGUMENTS" describes.

    Raises:
      UserError: no such file, an error in it, or arguments that it refuses.
    """
    name, separator, arguments = source.partition(":")
    path = find_config(name)
    try:
        config = _load_module(path).get_config(*([arguments] if separator else []))
    except UserError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{path}: {first_line(error)} ({where.filename}, line {where.lineno}): expected a "
            "Python file with get_config(arguments)"
        ) from error
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"{path}: get_config returned {type(config).__name__}, expected an "
            "ml_collections.ConfigDict"
        )
    return config


def find_config(name: str) -> Path:
    """Return the path of a configuration file.

    Args:
      name: path of a file, or name of a shipped configuration.

    Raises:
      InputError: there is none.
    """
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{unknown_name(name, shipped, 'configuration')}, or the path of a file")
    return path


def shipped_configs() -> dict[str, Path]:
    """Return the configuration files of this project by name.

    A wheel holds them in the package, a source tree beside it.
    """
    package = Path(sar_mixmae_jax.__file__).parent
    folder = next(
        (folder for folder in (package / PACKAGE, package.parent / PACKAGE) if folder.is_dir()),
        package / PACKAGE,
    )
    return {
        path.stem: path
        for path in sorted(folder.glob("*.py"))
        if re.search(r"^def get_config\(", path.read_text(), re.MULTILINE)
    }


def _load_module(path: Path) -> ModuleType:
    """Execute a configuration file; `from configs import …` finds its siblings or shipped ones."""
    siblings = path.parent / "__init__.py"
    if not siblings.is_file():
        shipped = shipped_configs()
        siblings = next(iter(shipped.values()), path).parent / "__init__.py"
    if siblings.is_file() and PACKAGE not in sys.modules:
        _execute(PACKAGE, siblings)
    return _execute(f"config_file_{path.stem}", path)


def _execute(name: str, path: Path) -> ModuleType:
    """Import a file as the module `name`; a file `__init__.py` becomes a package."""
    locations = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=locations)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file: expected a name that ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
