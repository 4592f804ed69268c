"""Numba's compiler with the steps that kernels need, each once.

Kernels have integers, floats, vectors and tuples of them; they hold no objects, raise nothing, and call helpers that are
merged by LLVM. So nothing looks for closures, arrays, generators or loops to unroll, no variable is deleted and no reference
counted, and an operation is typed once for the types of its operands, not in every place. LLVM is given the same code but
for loads and stores that it would delete itself.
"""

from __future__ import annotations

from typing import Any

from numba.core import errors, funcdesc, ir, types
from numba.core.analysis import dead_branch_prune, rewrite_semantic_constants
from numba.core.bytecode import ByteCode, FunctionIdentity
from numba.core.callconv import create_error_model
from numba.core.compiler import compile_result
from numba.core.imputils import builtin_registry
from numba.core.interpreter import Interpreter
from numba.core.ir_utils import build_definitions
from numba.core.lowering import Lower
from numba.core.rewrites.static_getitem import RewriteConstGetitems
from numba.core.ssa import reconstruct_ssa
from numba.core.targetconfig import ConfigStack
from numba.core.transforms import canonicalize_cfg
from numba.core.typed_passes import PreLowerStripPhis
from numba.core.typeinfer import TypeInferer
from numba.core.typing import signature

_signatures: dict[tuple[Any, tuple[Any, ...]], Any] = {}  # of calls, by what is called and the types of operands
_implementations: dict[tuple[Any, Any], Any] = {}  # by what is called and its signature


class Pipeline:
    """Compiles a function for the types of its arguments, as Numba's dispatchers ask for it."""

    def __init__(
        self, typing: Any, target: Any, library: None, args: Any, return_type: Any, flags: Any, locals: Any
    ) -> None:
        self._typing, self._args, self._result, self._flags = typing, args, return_type, flags
        self._target = target.subtarget(error_model=create_error_model(flags.error_model, target))

    def compile_extra(self, function: Any) -> Any:
        """What Numba keeps of a function; its code is in a library."""
        with ConfigStack().enter(self._flags.copy()):
            code = self._interpreted(function)
            types_of, result, calls = self._inferred(code)
            code.blocks = PreLowerStripPhis()._strip_phi_nodes(code).blocks
            code._definitions = build_definitions(code.blocks)
            return self._lowered(code, types_of, result, calls)

    def _interpreted(self, function: Any) -> Any:
        """Numba's intermediate code in SSA form, without branches that constants decide."""
        identity = FunctionIdentity.from_function(function)
        code = Interpreter(identity).interpret(ByteCode(identity))
        code.blocks = canonicalize_cfg(code.blocks)
        rewrite_semantic_constants(code, self._args)
        dead_branch_prune(code, self._args)
        items = RewriteConstGetitems()
        for label, block in code.blocks.items():
            if items.match(code, block, None, None):
                code.blocks[label] = items.apply()
        code = reconstruct_ssa(code)
        code._definitions = build_definitions(code.blocks)
        dead_branch_prune(code, self._args)
        return code

    def _inferred(self, code: Any) -> tuple[Any, Any, Any]:
        """The types of variables, of the result, and the signatures of calls; helpers are compiled."""
        inferer = _Inferer(self._typing, code, errors.WarningsFixer(errors.NumbaWarning))  # type: ignore[attr-defined]
        with self._typing.callstack.register(self._target.target, inferer, code.func_id, self._args):
            for index, (name, kind) in enumerate(zip(code.arg_names, self._args, strict=True)):
                inferer.seed_argument(name, index, kind)
            if self._result is not None:
                inferer.seed_return(self._result)
            inferer.build_constraint()
            inferer.propagate()
            found: tuple[Any, Any, Any] = inferer.unify()
            return found

    def _lowered(self, code: Any, types_of: Any, result: Any, calls: Any) -> Any:
        """LLVM's intermediate code, in a library of its own."""
        flags, target = self._flags, self._target
        library = target.codegen().create_library(code.func_id.func_qualname)
        described = funcdesc.PythonFunctionDescriptor.from_specialized_function(
            code, types_of, result, calls,
            mangler=target.mangler, inline=flags.forceinline, noalias=flags.noalias, abi_tags=[flags.get_mangle_string()],
        )  # fmt: skip
        target.install_registry(builtin_registry)  # operations that were typed
        with target.push_code_library(library):
            lowering = _Lowering(target, library, described, code)
            lowering.lower()
            if not flags.no_cfunc_wrapper:
                lowering.create_cfunc_wrapper()
        entry = None
        if not flags.no_compile:
            entry = target.get_executable(library, described, lowering.env)
            target.insert_user_function(entry, described, [library])
        return compile_result(
            typing_context=self._typing, target_context=target, entry_point=entry, library=library,
            signature=signature(result, *self._args), objectmode=False, fndesc=described,
        )  # fmt: skip


class _Inferer(TypeInferer):
    def resolve_call(self, called: Any, operands: Any, named: Any) -> Any:
        """The signature of a call, as Numba finds it, once for what is called with operands of such types."""
        if named or not isinstance(called, types.Function | types.Dispatcher):
            return super().resolve_call(called, operands, named)
        key = called, tuple(operands)
        if key not in _signatures:
            if isinstance(called, types.Dispatcher):
                found = _compiled(called.dispatcher, operands)
            else:
                found = super().resolve_call(called, operands, named)
            if found is None:
                return None
            _signatures[key] = found
        return _signatures[key]


def _compiled(helper: Any, operands: Any) -> Any:
    """The signature of a helper for operands of such types, for which it is compiled."""
    parameters, operands = helper.fold_argument_types(operands, {})
    if operands not in helper.overloads:
        helper.add_overload(helper._compiler.compile(operands, None))
    return helper.overloads[operands].signature.replace(pysig=parameters)


class _Lowering(Lower):
    _disable_sroa_like_opt = False

    def lower_block(self, block: Any) -> None:
        """Without the text of every statement, which Numba keeps ready for errors."""
        self.pre_block(block)
        for statement in block.body:
            self.loc = statement.loc
            try:
                self.lower_inst(statement)
            except Exception as problem:
                problem.add_note(f"{self.fndesc.qualname}, {self.loc}")
                raise
        self.post_block(block)

    def lower_inst(self, statement: Any) -> None:
        if isinstance(statement, ir.Assign) and not isinstance(statement.value, ir.Arg):
            name = statement.target.name
            self.storevar(self.lower_assign(self.typeof(name), statement), name)
        else:
            super().lower_inst(statement)

    def storevar(self, value: Any, name: str, argidx: int | None = None) -> None:
        """What a variable held before is not looked at: nothing counts references."""
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self._alloca_var(name, self.typeof(name))
            self.builder.store(value, self.getvar(name))

    def lower_binop(self, result: Any, expression: Any, operation: Any) -> Any:
        if expression.static_lhs is not ir.UNDEFINED or expression.static_rhs is not ir.UNDEFINED:
            return super().lower_binop(result, expression, operation)
        called = self.context.typing_context.resolve_value_type(operation)
        found = self.fndesc.calltypes[expression]
        operands = [
            self._cast_var(var, kind) for var, kind in zip((expression.lhs, expression.rhs), found.args, strict=True)
        ]
        key = called, found.args
        if key not in _signatures:
            _signatures[key] = called.get_call_type(self.context.typing_context, found.args, {})
        made = self._generated(called, _signatures[key], operands)
        return self.context.cast(self.builder, made, found.return_type, result)

    def lower_call(self, result: Any, expression: Any) -> Any:
        called, found = self.typeof(expression.func.name), self.fndesc.calltypes[expression]
        if not isinstance(called, types.Function | types.Dispatcher):
            return super().lower_call(result, expression)
        operands = self.fold_call_args(called, found, expression.args, expression.vararg, expression.kws)
        made = self._generated(called, found, operands)
        if made is None:
            made = self.context.get_dummy_value()
        return self.context.cast(self.builder, made, found.return_type, result)

    def _generated(self, called: Any, found: Any, operands: Any) -> Any:
        """The value of an operation, or of a helper's call."""
        key = called, found
        if key not in _implementations:
            _implementations[key] = self.context.get_function(called, found)._imp
        generate = _implementations[key]
        value = generate(self.context, self.builder, found, operands, loc=self.loc)
        self.context.add_linking_libs(getattr(generate, "libs", ()))
        return value
