"""From declarations to machine code: with `quant.numba_pipeline` the only module that needs Numba."""

from __future__ import annotations

import types as python_types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import signature
from typing import Any

import numba
from llvmlite.binding import Linkage
from numba import types
from numba.core import cgutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

from quant import cpu, numba_environment
from quant.block import Block
from quant.declarations import CFunction, Inline, Intrinsic, Vector, vector_llvm
from quant.layout import Layout
from quant.numba_pipeline import Pipeline

# No fast-math flag: results must not depend on how rows are grouped, so sums are ordered by hand with vectors.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "pipeline_class": Pipeline}
# Helpers are only ever merged into kernels: without the entries for callers from Python and C, which take a third of the time.
_HELPER_OPTIONS = {**_OPTIONS, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_ARGUMENTS = {"p": types.int64, "f": types.float32, "d": types.float64}


class _VectorType(types.Type):
    def __init__(self, element: str, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def key(self) -> tuple[str, int]:
        return self.element, self.lanes


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: _VectorType) -> None:
        super().__init__(manager, vector, vector_llvm(Vector(vector.element, vector.lanes)))


def machine_code(function: CFunction) -> tuple[str, bytes]:
    """Compile a function: the name of its symbol, and an object file. Raises TypeError if it might raise an exception."""
    with numba_environment.set_aside(), global_compiler_lock:
        _configure()
        with _nothing_executable():
            return _compiled(function)


def _configure() -> None:
    """Have Numba's settings be its defaults, whatever the program around set by variables, and its processor ours."""
    numba.config.reload_config()
    # A forced name without features would otherwise be joined by the features of this machine.
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = cpu.name(), cpu.features()


class _Library(JITCodeLibrary):
    """A function's code, and that of what it calls, as LLVM's intermediate code: merged, but neither optimized to the end
    nor translated, as every helper would be on its own, only to be merged into a kernel afterwards."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout
        for function in module.functions:
            if not function.is_declaration:
                passes, builder = self._codegen._function_pass_manager()
                passes.run(function, builder)

    def finalize(self) -> None:
        """Merge what is called, and bring loops into the form in which kernels are optimized."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        passes, builder = self._codegen._module_pass_manager(
            loop_vectorize=False, slp_vectorize=False, opt=0, cost="cheap"
        )
        passes.run(self._final_module, builder)
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.linkage = "linkonce_odr"  # dropped where it has been merged
        return self._final_module

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def translated(self) -> bytes:
        """An object file, optimized. Raises RuntimeError in a locale in which LLVM misreads numbers."""
        self._codegen._check_llvm_bugs()
        self._ensure_finalized()
        for variable in self._final_module.global_variables:
            if "NumbaEnv" in variable.name:  # which nothing reads, and whose names have addresses in them
                variable.linkage = "internal"
        self._optimize_final_module()
        object_file: bytes = self._codegen._tm.emit_object(self._final_module)
        return object_file


@contextmanager
def _nothing_executable() -> Iterator[None]:
    """Within the block Numba makes a `_Library` of every function. It takes two thirds of the time."""
    context = cpu_target.target_context
    context.refresh()  # so that what Numba itself executes is there
    codegen = context.codegen()
    codegen._library_class, codegen.set_env = _Library, lambda name, environment: None
    try:
        yield
    finally:
        del codegen._library_class, codegen.set_env  # those of the class are left


def _compiled(function: CFunction) -> tuple[str, bytes]:
    result = types.int64 if function.returns else types.void
    arguments = result(*[_ARGUMENTS[letter] for letter in function.parameters])
    body = _bound(function.body)
    cpu_target.target_context.refresh()  # which knows the operations now
    compiled = numba.cfunc(arguments, **_OPTIONS)(body)
    object_file = compiled._library.translated()
    if b"numba_gil_ensure" in object_file:
        raise TypeError(f"{function.name} may raise an exception, which no kernel must (a range with a variable step?)")
    return compiled._wrapper_name, object_file


def _bound(body: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its globals as Numba wants them."""
    names = {name for code in _codes(body.__code__) for name in code.co_names}
    known = {name: _resolved(value) for name, value in body.__globals__.items() if name in names}
    known |= {name: _helper(helper) for name, helper in _BUILTINS.items() if name in names}
    known["__name__"] = body.__module__
    bound = python_types.FunctionType(body.__code__, known, body.__name__, body.__defaults__, body.__closure__)
    bound.__qualname__, bound.__module__ = body.__qualname__, body.__module__
    return bound


# Numba's own, in its eyes, may raise.
_BUILTINS = {"min": Inline(lambda a, b: a if a < b else b), "max": Inline(lambda a, b: a if a > b else b)}


def _codes(code: python_types.CodeType) -> list[python_types.CodeType]:
    inner = [constant for constant in code.co_consts if isinstance(constant, python_types.CodeType)]
    return [code, *(deeper for one in inner for deeper in _codes(one))]


def _resolved(value: Any) -> Any:
    if isinstance(value, Inline):
        return _helper(value)
    if isinstance(value, Layout | Block):
        return _constants(value)
    return _operation(value) if isinstance(value, Intrinsic) else value


@cache
def _constants(declared: Layout | Block) -> Any:
    return declared.as_constants()


@cache
def _helper(helper: Inline) -> Any:
    return numba.njit(**_HELPER_OPTIONS)(_bound(helper.body))


@cache
def _operation(operation: Intrinsic) -> Any:
    """An intrinsic as Numba declares it: with as many parameters as its rule, all by position."""
    names = list(signature(operation.rule).parameters)

    def typing(*given: Any) -> Any:
        taken = [_taken(name, kind) for name, kind in zip(names, given, strict=True)]
        result, generate = operation.rule(*taken)
        returned = _as_type(result)

        def code(context: Any, builder: Any, called: Any, values: Any) -> Any:
            operands = [_as_value(context, builder, kind, value) for kind, value in zip(taken, values, strict=True)]
            made = generate(builder, *operands)
            if made is None or result is None:
                return context.get_dummy_value()
            return context.make_tuple(builder, returned, made) if isinstance(made, list) else made

        return returned(*taken), code

    typing.__name__ = operation.rule.__name__
    with_arity = _WITH_ARITY[len(names)](typing)
    return intrinsic(prefer_literal="constant" in names)(with_arity)


_WITH_ARITY: dict[int, Callable[[Any], Any]] = {
    0: lambda f: lambda _: f(),
    1: lambda f: lambda _, a: f(a),
    2: lambda f: lambda _, a, b: f(a, b),
    3: lambda f: lambda _, a, b, c: f(a, b, c),
    4: lambda f: lambda _, a, b, c, d: f(a, b, c, d),
    5: lambda f: lambda _, a, b, c, d, e: f(a, b, c, d, e),
    6: lambda f: lambda _, a, b, c, d, e, g: f(a, b, c, d, e, g),
    7: lambda f: lambda _, a, b, c, d, e, g, h: f(a, b, c, d, e, g, h),
}


def _taken(name: str, kind: Any) -> Any:
    """The type in which an operand is passed on."""
    if name == "constant":
        return kind
    kind = types.unliteral(kind)
    if isinstance(kind, types.BaseTuple):
        return types.Tuple([_taken("", item) for item in kind.types])
    if isinstance(kind, types.Integer | types.Boolean):
        return types.int64
    return types.float32 if isinstance(kind, types.Float) else kind


def _as_type(result: Any) -> Any:
    if isinstance(result, Vector):
        return _VectorType(result.element, result.lanes)
    if isinstance(result, tuple):
        return types.UniTuple(_as_type(result[0]), result[1])
    return {None: types.void, "i64": types.int64, "f32": types.float32}.get(result, result)


def _as_value(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return cgutils.unpack_tuple(builder, value) if isinstance(kind, types.BaseTuple) else value
