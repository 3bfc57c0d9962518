"""The audit block of the verifier lab: each rule with its verdict, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

from workbench.bench.audit import Audit, Finding
from workbench.core.method import Knob, methods


def run_knobs() -> tuple[Knob, ...]:
    """What an audit of a run can be told."""
    names = tuple(card.name for card in methods("drafter"))
    return (
        Knob("drafter", "choice", "draft_model", choices=names, help="Drafter of the audited run."),
        Knob(
            "temperature", "float", 0.8, low=0.0, high=1.5, step=0.1, help="Of the audited run."
        ),
        Knob(
            "draws", "int", 120, low=20, high=400, step=20, unit="drafts",
            help="Drafts tried at each of three places; more see smaller faults.",
        ),
    )  # fmt: skip


def audit_html(rule: Audit, live: Any, title: str, fresh: bool = True) -> str:
    """The enumerated audit of the rule and, once there is one, that of a run.

    Args:
        title: of the rule that is looked at now.
        fresh: whether ``rule`` is the audit of the rule and the laws of now, or an earlier one.
    """
    if fresh:
        parts = [_block(f"Audit of {title}, every draft enumerated", rule)]
    else:
        parts = [
            f'<div aria-busy="true"><div style="opacity:.45">'
            f"{_block(f'Audit of {title}: every draft is being enumerated …', rule)}</div></div>"
        ]
    if live.error:
        parts.append(f'<div class="dw-error" role="alert">{escape(live.error)}</div>')
    if live.found is not None:
        parts.append(_block(f"Audit of a run: {live.found.subject}", live.found))
    elif not live.busy:
        parts.append(
            '<p class="dw-small">“Audit a run” asks a run of the embedded models at three places'
            " what it would have emitted for many drafts.</p>"
        )
    return "".join(parts)


def _block(title: str, audit: Audit) -> str:
    size = f"{audit.distance:.1e}" if audit.distance < 1e-3 else f"{audit.distance:.3f}"
    error = f" ± {audit.error:.3f}" if audit.error else ""
    rows = "".join(_row(finding) for finding in audit.findings)
    return (
        f'<h3 class="dw-title">{escape(title)}</h3>'
        f'<p class="dw-why">Distance to the target\'s law: <b>{size}{error}</b>.'
        f" {escape(audit.reading)}</p>"
        f'<table class="dw-table">{rows}</table>'
    )


def _row(finding: Finding) -> str:
    said = {True: "holds", False: "BROKEN", None: "not asked"}[finding.holds]
    colour = {True: "accepted", False: "corrected", None: "muted"}[finding.holds]
    more = f" · {finding.distance:.3f}" if finding.holds is False else ""
    where = f" ({finding.where})" if finding.where and finding.holds is False else ""
    return (
        f'<tr><td style="color:var(--dw-text)">{escape(finding.rule + where)}</td>'
        f'<td style="color:var(--dw-{colour});white-space:nowrap">{said}{more}</td></tr>'
    )
