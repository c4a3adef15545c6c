"""The commands and options of ``fxfuse``, and what is no value of an option.  Nothing here needs torch."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fxfuse
from fxfuse.cli.settings import DTYPES, EXPORT_FORMATS, PAGE_FORMATS, PLOT_FORMATS, Bench

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BAD_USAGE = 2
NUMBERS, AXES = re.compile(r"[\d,x]+"), re.compile(r"[\w,]*=[\w,=]+")
LISTS = {"--batch": NUMBERS, "--input-size": NUMBERS, "--input-shape": NUMBERS, "--dynamic-axes": AXES}
PATHS = ("FILE", "FILE.npy", "OUTPUT", "PLAN", "IN", "OUT")
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # as shtab.FILE, which is not always installed
MODEL_HELP = "a model of torchvision, timm:NAME, or package.module:factory"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence.  A part of the name of an option is none."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.commands: Mapping[str, argparse.ArgumentParser] = {}

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and leave."""
        self.exit(BAD_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Completion(argparse.Action):
    """Let shtab write the completion of a shell."""

    def __call__(
        self, parser: argparse.ArgumentParser, _namespace: Any, shell: Any, _option: str | None = None
    ) -> None:
        """Print it, and leave."""
        try:
            import shtab  # noqa: PLC0415 - an optional package, which only this needs
        except ImportError:
            parser.error('shtab is not installed; it comes with the extra "bench": pip install "fxfuse[bench]"')
        sys.stdout.write(shtab.complete(parser, shell) + "\n")
        parser.exit(0)


def joined(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a list of values as one: argparse would take a name behind them for a value.

    Example:
        >>> joined(["bench", "--batch", "1", "8", "resnet50"])
        ['bench', '--batch', '1,8', 'resnet50']
    """
    found: list[str] = []
    values: re.Pattern[str] | None = None  # what more values of the option before would look like
    for argument in arguments:
        more = values is not None and values.fullmatch(argument) is not None
        if more and found[-1] not in LISTS:
            found[-1] = f"{found[-1].rstrip(',')},{argument.lstrip(',')}"
        else:
            found.append(argument)
        values = values if more else LISTS.get(argument.partition("=")[0])
    return found


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command, of which models and options may stand in any order."""
    made, given = parser(), joined(arguments)
    if not given or given[0] not in made.commands:
        return made.parse_args(given)
    return made.commands[given[0]].parse_intermixed_args(given[1:], argparse.Namespace(command=given[0]))


def parser() -> Parser:
    """Return the parser of all commands and options."""
    purpose = "Fold batch norms into the convolutions and linears around them."
    made = Parser(prog="fxfuse", description=purpose)
    made.add_argument("--version", action="version", version=f"fxfuse {fxfuse.__version__}")
    shell_help = 'print what completes the options in a shell: eval "$(fxfuse --print-completion bash)"'
    made.add_argument("--print-completion", action=_Completion, choices=("bash", "zsh", "tcsh"), help=shell_help)
    commands = made.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_bench(commands.add_parser("bench", help="time models before and after"))
    _add_explain(commands.add_parser("explain", help="print what would be folded, and why not the rest"))
    _add_export(commands.add_parser("export", help="write a fused model to a file: ONNX, or an exported program"))
    _add_refold(commands.add_parser("refold", help="fold new weights as a saved plan says, from file to file"))
    made.commands = commands.choices
    for action in (action for command in made.commands.values() for action in command._actions):
        if str(action.metavar) in PATHS:
            vars(action)["complete"] = FILE
    return made


def _add_bench(made: argparse.ArgumentParser) -> None:
    """The options of ``fxfuse bench``."""
    default = Bench()
    add = made.add_argument
    add("models", nargs="*", metavar="MODEL", help=f"{MODEL_HELP}; default: {' '.join(default.models)}")
    batch_help = "sizes of the batch; default: 1,32"
    add("--batch", dest="batches", type=_numbers, action="extend", metavar="N,N", default=None, help=batch_help)
    add("--threads", type=_positive, metavar="N", help="threads of torch; default: torch's own choice")
    add("--dtype", choices=DTYPES, default=default.dtype, help="default: %(default)s")
    device_help = "where to time the models: cpu, cuda; default: %(default)s"
    add("--device", type=_device, default=default.device, help=device_help)
    add("--channels-last", action="store_true", help="time the models in this memory format")
    add("--repeats", type=_positive, metavar="N", help="rounds to time; default: what --seconds allows")
    add("--seconds", type=_seconds, metavar="S", default=default.seconds, help="time of a row; default: %(default)g")
    _add_input_size(made)
    _add_weights(made)
    add("--lower", action="store_true", help="time the fused model with its kernels too")
    add("--json", type=_output, metavar="FILE", help="write settings and rows to this file too")
    add(
        "--plot",
        type=partial(_output_in, PLOT_FORMATS),
        metavar="FILE",
        help="draw the speed-ups as a bar chart: .png, .svg or .pdf",
    )


def _add_explain(made: argparse.ArgumentParser) -> None:
    """The options of ``fxfuse explain``."""
    add = made.add_argument
    add("model", metavar="MODEL", help=f"{MODEL_HELP}, or a saved exported program: FILE.pt2")
    _add_input_size(made)
    _add_weights(made)
    add("--lower", action="store_true", help="print what each kernel of the lowered model takes in too")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("--fail-on-left", action="store_true", help="leave with status 3 if a norm is left")
    page_help = "write a page with the graphs before and after, and all decisions: .html"
    add("--html", type=partial(_output_in, PAGE_FORMATS), metavar="FILE", help=page_help)


def _add_export(made: argparse.ArgumentParser) -> None:
    """The options of ``fxfuse export``."""
    add = made.add_argument
    add("model", metavar="MODEL", help=f"{MODEL_HELP}, or a saved exported program: FILE.pt2")
    add("output", type=partial(_output_in, EXPORT_FORMATS), metavar="OUTPUT", help="the file to write: .onnx or .pt2")
    sizes = made.add_mutually_exclusive_group()
    sizes.add_argument("--input-shape", type=_numbers, metavar="B,C,H,W", help="shape of the input, with the batch")
    _add_input_size(sizes)
    sizes.add_argument("--input", type=_array, metavar="FILE.npy", help="an input of yours, to run the file on")
    _add_weights(made)
    add("--dynamic-batch", action="store_true", help="take batches of any size")
    axes_help = "axes that may have any size, and their names: 0=batch,2=height"
    add("--dynamic-axes", type=_axes, metavar="AXIS=NAME", default={}, help=axes_help)
    add("--verify", action="store_true", help="write nothing that differs from the model by more than rounding")


def _add_refold(made: argparse.ArgumentParser) -> None:
    """The arguments of ``fxfuse refold``."""
    made.add_argument("plan", type=Path, metavar="PLAN", help="what Plan.save wrote: .json")
    made.add_argument("weights", type=Path, metavar="IN", help="weights of the original: .safetensors or .pt")
    made.add_argument("output", type=_output, metavar="OUT", help="weights of the fused model: .safetensors or .pt")


def _add_weights(made: argparse._ActionsContainer) -> None:
    """The option for models that are built by name."""
    help_text = "weights to load into the model: .safetensors or .pt; default: random ones"
    made.add_argument("--weights", type=Path, metavar="FILE", help=help_text)


def _add_input_size(made: argparse._ActionsContainer) -> None:
    """The option that all commands share."""
    help_text = "shape of one sample, without the batch; one number N means 3,N,N"
    made.add_argument("--input-size", type=_size, metavar="C,H,W", help=help_text)


def _positive(text: str) -> int:
    """A whole number over zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number over zero')
    return int(text)


def _seconds(text: str) -> float:
    """A number over zero."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f'"{text}" is not a number over zero')


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers over zero, with commas between them, or as in 3x224x224."""
    numbers = [number.strip() for number in re.split("[,x]", text.strip(", "))]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise argparse.ArgumentTypeError(f'"{text}" must be whole numbers over zero, with commas between them')
    return tuple(map(int, numbers))


def _size(text: str) -> tuple[int, ...]:
    """The shape of one sample: a single number is the side of an image."""
    numbers = _numbers(text)
    return (3, *numbers, *numbers) if len(numbers) == 1 else numbers


def _axes(text: str) -> dict[int, str]:
    """Numbers of axes with names."""
    pairs = [pair.strip().partition("=") for pair in text.strip(", ").split(",")]
    wrong = [axis for axis, equals, name in pairs if not (axis.isdecimal() and equals and name.isidentifier())]
    if wrong:
        raise argparse.ArgumentTypeError(f'"{text}" does not name axes; write 0=batch,2=height')
    return {int(axis): name for axis, _, name in pairs}


def _device(text: str) -> str:
    """A device that torch can use here."""
    if text == "cpu":
        return text
    import torch  # noqa: PLC0415 - only whoever asks for a device waits for it

    found = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count()
    usable = ["cpu", *([found.type, *(f"{found.type}:{index}" for index in range(count))] if found else [])]
    if text not in usable:
        raise argparse.ArgumentTypeError(f'"{text}" is no device that torch finds here; it finds {", ".join(usable)}')
    return text


def _output(text: str) -> Path:
    """A file in a folder that exists: better told now than after minutes of work."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        why = "it is a folder itself" if path.is_dir() else "its folder does not exist, or does not let you write"
        raise argparse.ArgumentTypeError(f'"{text}" cannot be written: {why}')
    return path


def _array(text: str) -> Path:
    """A file of NumPy that exists."""
    path = Path(text)
    if path.suffix != ".npy" or not path.is_file():
        raise argparse.ArgumentTypeError(f'"{text}" is no file that numpy.save wrote; it must exist and end in .npy')
    return path


def _output_in(suffixes: Iterable[str], text: str) -> Path:
    """A file with one of the suffixes."""
    path = _output(text)
    if path.suffix not in suffixes:
        raise argparse.ArgumentTypeError(f'"{text}" must end in {" or ".join(suffixes)}')
    return path
