"""`outgate lint`: the parser's and the planner's answers about manifests, touching nothing and needing no privilege."""

from __future__ import annotations

from pathlib import Path

import click

from outgate.cli.show import CHANGES, FAILED, FINE, format_option, show, style


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("-f", "--manifests", multiple=True, type=click.Path(path_type=Path), help="The same, as kubectl has it.")
@format_option
def lint(paths: tuple[Path, ...], manifests: tuple[Path, ...], output: str) -> int:
    """Check manifests: exit 0 when nothing is wrong, 1 on warnings, 2 when something would not be in force."""
    from outgate.model.why import Severity
    from outgate.plan.lint import contradictions
    from outgate.report.findings import findings_document, findings_text
    from outgate.sources.manifests import check

    if not paths and not manifests:
        raise click.UsageError("name a directory or a file")
    intent, findings = check([*paths, *manifests])
    findings = (*findings, *contradictions(intent))
    show(output, lambda: findings_document(findings), lambda: findings_text(findings, style()) or "nothing to say")
    if any(finding.severity is Severity.REFUSAL for finding in findings):
        return FAILED
    return CHANGES if any(finding.severity is Severity.WARNING for finding in findings) else FINE
