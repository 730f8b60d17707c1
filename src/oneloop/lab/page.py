"""The pieces of a page: one file, no script, nothing from a network, every word escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root{color-scheme:light dark;--text:#1c1e21;--page:#fff;--line:#d8dce1;--soft:#5c636b;--card:#f3f4f6;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--text:#e7e9ec;--page:#16181b;--line:#3a3f46;--soft:#a5acb4;--card:#24282d;
--bad:#ff8a80}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--text);
background:var(--page);margin:0 auto;max-width:1120px;padding:28px 20px 72px}
h1{font-size:27px;line-height:1.25;margin:0 0 6px;overflow-wrap:anywhere}h2{font-size:19px;margin:40px 0 8px}
p{margin:4px 0}p.note{color:var(--soft)}p.bad{color:var(--bad)}
figure p.bad{color:#b3261e}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:12px 0;min-width:50%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:0 0 6px}
th,td{border-bottom:1px solid var(--line);padding:6px 18px 6px 0;text-align:left;vertical-align:top}
th{font-weight:600;font-size:13px;color:var(--soft);white-space:nowrap}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:14px;margin:12px 0}
figure{margin:0;background:#fff;color:#1c1e21;border:1px solid var(--line);border-radius:8px;padding:10px 12px}
figure h3{font:600 14px/1.3 ui-monospace,SFMono-Regular,Menlo,monospace;margin:0 0 4px;overflow-wrap:anywhere}
figure>svg{display:block;width:100%;height:auto}
figcaption{font-size:12.5px;line-height:1.4;color:#454b53}
figcaption span{margin-right:12px;display:inline-block}figcaption svg{vertical-align:middle;margin-right:4px}
details{margin:12px 0}summary{cursor:pointer;color:var(--soft)}
pre{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;background:var(--card);padding:10px 12px;
border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere}
code{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;background:var(--card);padding:2px 5px;
border-radius:4px;white-space:pre-wrap;overflow-wrap:anywhere;display:inline-block;min-width:9em;max-width:46em}
"""


@dataclass(frozen=True)
class Table:
    """A table of plain text cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


def document(title: str, body: Sequence[str]) -> str:
    """A whole page around pieces of HTML."""
    # the policy is a second fence behind the escaping: a browser would refuse scripts and requests anyway
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{shown(title)}</title><style>{_STYLE}</style></head>\n<body>{''.join(body)}</body></html>\n"
    )


def table(content: Table) -> str:
    """HTML of a table whose cells are text."""
    return html_table(content.header, [[shown(cell) for cell in row] for row in content.rows], content.caption)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """HTML of a table whose cells are HTML already; its header and caption are text."""
    head = "".join(f'<th scope="col">{shown(cell)}</th>' for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><caption>{shown(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>\n"
    )


def note(text: str, kind: str = "note") -> str:
    """HTML of a paragraph of text."""
    return f'<p class="{kind}">{shown(text)}</p>'


def code(text: str, limit: int = 1500) -> str:
    """HTML of what a model wrote or read: its first `limit` characters."""
    rest = len(text) - limit
    return f"<code>{shown(text[:limit])}</code>" + (note(f"… and {rest} characters more") if rest > 0 else "")


def block(text: str) -> str:
    """HTML of text whose lines stay as they are."""
    return f"<pre>{shown(text)}</pre>"


def shown(text: str) -> str:
    """Escaped, with what cannot be seen (control characters, changes of direction, lone surrogates) spelled out."""
    return escape("".join(c if c.isprintable() or c == "\n" else _spelled(c) for c in text))


def _spelled(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
