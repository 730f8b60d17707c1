"""One self-contained HTML page about one or more runs: tables, curves as pictures, completions, alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from oneloop.record.reader import RunRecord, read_run

CURVES = (
    ("reward", "mean reward of the completions drawn"),
    ("eval/reward", "mean reward on held-out prompts"),
    ("loss", "loss"),
    ("eval/loss", "loss on held-out data"),
    ("rewards/accuracies", "pairs ranked right, share"),
    ("eval/rewards/accuracies", "held-out pairs ranked right, share"),
    ("kl", "KL to the reference, nats per token"),
    ("entropy", "entropy of the policy, nats per token"),
    ("approx_kl", "KL(π_old ‖ π_θ), nats per token"),
    ("clip/gradient_zero", "tokens whose gradient the clip made 0, share"),
    ("frac_reward_zero_std", "groups with equal rewards, share"),
    ("completions/mean_length", "length of completions, tokens"),
    ("completions/clipped_ratio", "truncated completions, share"),
    ("explained_variance", "explained variance of the critic"),
    ("grad_norm", "gradient norm"),
    ("rollout/logprob_gap_max", "largest |log π_old − log μ|, nats"),
)
"""Metric and the words on its axis."""

_STYLE = """
:root{color-scheme:light dark;--text:#1c1e21;--page:#fff;--line:#d8dce1;--soft:#5c636b;--card:#f5f6f8}
@media(prefers-color-scheme:dark){:root{--text:#e7e9ec;--page:#16181b;--line:#3a3f46;--soft:#a5acb4;--card:#202327}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--text);background:var(--page);margin:0 auto;max-width:1080px;
padding:24px 16px 64px}h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 8px}
p.note{color:var(--soft);margin:4px 0}table{border-collapse:collapse;margin:8px 0;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:4px 0}th,td{border-bottom:1px solid var(--line);
padding:5px 12px 5px 0;text-align:left;vertical-align:top}.scroll{overflow-x:auto}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:12px}
figure{margin:0;background:#fff;border:1px solid var(--line);border-radius:8px;padding:8px}
figure svg{width:100%;height:auto}
code{font:13px/1.4 ui-monospace,monospace;background:var(--card);padding:1px 4px;border-radius:4px;
white-space:pre-wrap;overflow-wrap:anywhere}
"""


@dataclass(frozen=True)
class Table:
    """A table of plain text cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


def report_run(path: Path) -> Path:
    """Write `<run>/report.html`; returns its path."""
    return write_report([(path.name, path)], path / "report.html", title=f"Run {path.name}")


def write_report(
    runs: Sequence[tuple[str, Path]],
    out: Path,
    *,
    title: str,
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Path:
    """One page for named run folders; every word of a run is escaped, for completions are hostile input."""
    records = [(name, read_run(path)) for name, path in runs]
    body = [f"<h1>{escape(title)}</h1>", *(f'<p class="note">{escape(note)}</p>' for note in notes)]
    body += [_table(table) for table in tables]
    body += ["<h2>Learning curves</h2>", '<div class="curves">', *_curves(records), "</div>"]
    body += [_samples(name, record) for name, record in records if record.rollout_steps()]
    body.append(_alerts(records))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def _table(table: Table) -> str:
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{_shown(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.caption)}</caption>"
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _shown(text: str) -> str:
    """Escaped, with control characters made visible."""
    return escape("".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text))


def _curves(records: Sequence[tuple[str, RunRecord]]) -> list[str]:
    pictures = []
    for metric, label in CURVES:
        lines = [(name, *record.series(metric)) for name, record in records]
        lines = [line for line in lines if len(line[1]) > 1]
        if lines:
            pictures.append(f"<figure>{_picture(metric, label, lines)}</figure>")
    return pictures or ["<p class=note>fewer than two steps were logged</p>"]


def _picture(metric: str, label: str, lines: Sequence[tuple[str, list[int], list[float]]]) -> str:
    """An SVG with its description for those who cannot see it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415  # slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for name, steps, values in lines:
        axes.plot([step + 1 for step in steps], values, label=name.replace("$", r"\$"), linewidth=1.6)
    axes.set(title=metric, xlabel="step", ylabel=label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    words = "; ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, _, values in lines)
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(f"{label}: {words}")}"', 1)


def _samples(name: str, record: RunRecord) -> str:
    """The best and the worst completions of the first and the last step."""
    steps = record.rollout_steps()
    rows = []
    for step in dict.fromkeys((steps[0], steps[-1])):
        scored = [row for row in record.rollouts(step) if row["reward"] is not None]
        scored.sort(key=lambda row: row["reward"], reverse=True)
        chosen = scored[:2] + scored[-2:] if len(scored) > 4 else scored
        rows += [_sample(step, row) for row in chosen]
    head = "<th>step</th><th>prompt</th><th>completion</th><th>reward</th><th>advantage</th><th>stop</th>"
    return (
        f'<h2>Completions of {escape(name)}</h2><div class="scroll"><table><caption>best and worst of the first and '
        f"the last step</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _sample(step: int, row: dict[str, Any]) -> str:
    advantage = "" if row["advantage"] is None else f"{row['advantage']:+.3f}"
    return (
        f"<tr><td>{step + 1}</td><td><code>{_shown(row['prompt'])}</code></td><td><code>{_shown(row['completion'])}"
        f"</code></td><td>{row['reward']:.3f}</td><td>{advantage}</td><td>{escape(row['stop'])}</td></tr>"
    )


def _alerts(records: Sequence[tuple[str, RunRecord]]) -> str:
    rows = [
        [name, str(event["step"] + 1), event["code"], event["text"], event["fix"]]
        for name, record in records
        for event in record.events
    ]
    if not rows:
        return "<h2>Alerts</h2><p class=note>none</p>"
    return "<h2>Alerts</h2>" + _table(Table(("run", "step", "code", "what", "fix"), rows, f"{len(rows)} alerts"))
