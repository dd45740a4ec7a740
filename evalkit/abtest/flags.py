"""Somebody else assigns: an OpenFeature provider, or any function from a user's id to a variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evalkit.abtest.assignment import Variant
from evalkit.errors import DataError, DesignError

Assign = Callable[[str], Variant | None]
_NOBODY = ""  # no flag's variant: comes back when nobody decided


def openfeature_assigner(
    client: Any,
    flag: str,
    *,
    treatment: str | bool = True,
    control: str | bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Assign:
    """What an OpenFeature flag says of a user, for `run_ab_request(..., assign=...)`; the user's id is the targeting key.

    A flag that is off, unknown or not served, and a client without a provider, decide nothing: then the function raises, and
    the router counts no exposure. An undecided flag of True and False comes back as the default value, like one that was
    decided so; to tell them apart, a flag that gives `control` is asked once more with the other default.

    Args:
        client: `openfeature.api.get_client()`, or anything with its `get_boolean_details` and `get_string_details`.
        flag: The flag's key.
        treatment: The flag's value for treatment: True, or a text for a flag of texts.
        control: The flag's value for control.
        attributes: Of the evaluation context, the same for all users.

    Raises:
        DesignError: The two values are not two texts or True and False.
    """
    if type(treatment) is not type(control) or treatment == control:
        raise DesignError(
            f"treatment is {treatment!r} and control {control!r}; need True and False, or two different texts"
        )
    is_text = isinstance(treatment, str)
    ask = client.get_string_details if is_text else client.get_boolean_details
    defaults = (_NOBODY,) if is_text else (control, treatment)

    def assign(user_id: str) -> Variant:
        from openfeature.evaluation_context import EvaluationContext

        context = EvaluationContext(targeting_key=user_id, attributes=dict(attributes or {}))
        for default in defaults:
            value = _decided(ask(flag, default, context), flag)
            if value != default:
                break
        else:
            raise DataError(f"flag {flag!r}: nobody decided, the default value came back")
        if value not in (treatment, control):
            raise DataError(f"flag {flag!r} gave {value!r}; need {treatment!r} or {control!r}")
        return "treatment" if value == treatment else "control"

    return assign


def _decided(details: Any, flag: str) -> Any:
    """The value of an evaluation that did not fail."""
    if details.error_code is not None:
        told = f": {details.error_message}" if details.error_message else ""
        code = getattr(details.error_code, "value", details.error_code)
        raise DataError(f"flag {flag!r}: {code}{told}")
    if details.reason in ("DISABLED", "ERROR"):
        raise DataError(
            f"flag {flag!r}: reason {details.reason}; what it gives then is no assignment"
        )
    return details.value
