"""What a bundle's ``verdict.json`` holds: the one form that is accepted."""

from __future__ import annotations

from typing import Any, get_type_hints

from birthmark.controls import Control
from birthmark.exact_tests import Tests
from birthmark.geometry import Geometry
from birthmark.verdict import PictureEvidence

# What verdict.json holds: a type, a list of one form, a tuple of forms, or a dict of forms.
FORM: dict[str, Any] = {
    "decision": str,
    "p_value": float,
    "log10_p": float,
    "mode": str,
    "pictures": int,
    "payload": str | None,
    "payload_is_claimed": bool,
    "payload_guess": str,
    "payload_doubt": float,
    "emblem": str,
    "created": str,
    "tests_counted": int,
    "customer": str | None,
    "log10_likelihood_ratio": float,
    "log10_p_if_date_doubted": float,
    "claim_stamped": str | None,
    "queries_declared": int | None,
    "accused_took_part": bool,
    "asked": [str],
    "turned": bool,
    "geometry": get_type_hints(Geometry),
    "references": [str],
    "log10_p_without_references": float | None,
    "controls": [get_type_hints(Control)],
    "false_positive_rate": float,
    "tests": get_type_hints(Tests),
    "tint_tests": [get_type_hints(Tests)],
    "claim_digest": str,
    "calibration_sha256": str,
    "owner": str,
    "model_name": str,
    "model_sha256": str,
    "public_key": str,
    "evidence": [get_type_hints(PictureEvidence)],
    "rejected": [(str, str)],
    "curve": [(int, float)],
    "contract_version": int,
    "code_version": str,
    "extractor_sha256": str,
    "hypotheses": {"prosecution": str, "defence": str},
    "not_said": str,
    "protocol": [str],
}


def has_form(value: Any, form: Any) -> bool:
    """Whether a JSON value is of a form: a type, a list of one, a tuple of some, or a dict."""
    if isinstance(form, dict):
        return (
            isinstance(value, dict)
            and value.keys() == form.keys()
            and all(has_form(value[name], form[name]) for name in form)
        )
    if isinstance(form, list):
        return isinstance(value, list) and all(has_form(v, form[0]) for v in value)
    if isinstance(form, tuple):
        return (
            isinstance(value, list) and len(value) == len(form) and all(map(has_form, value, form))
        )
    return isinstance(value, form) and (form is bool or not isinstance(value, bool))
