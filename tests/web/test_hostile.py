"""Whatever a run writes is text: sixty texts that want to be more, in every place a run can put one, on every page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import recorded_runs as runs

SCRIPTS = [
    "<script>{}</script>",
    "<ScRiPt>{}</sCrIpT>",
    "<script src=data:text/javascript,{}></script>",
    "</script><script>{}</script>",
    "</title><script>{}</script>",
    "</textarea><script>{}</script>",
    "</style><script>{}</script>",
    "--><script>{}</script><!--",
    "]]><script>{}</script>",
    "<script\x0c>{}</script>",
    "<script/x>{}</script>",
    "<scr<script>ipt>{}</scr</script>ipt>",
]
ELEMENTS = [
    "<img src=x onerror={}>",
    "<img src=x onerror='{}'>",
    '"><img src=x onerror="{}">',
    "'><img src=x onerror={}>",
    "`><img src=x onerror={}>",
    "<img/src=x/onerror={}>",
    "<IMG SRC=x OnErRoR={}>",
    "<image href=x onerror={}>",
    "<svg onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg><animate onbegin={} attributeName=x dur=1s>",
    "<svg><set onbegin={} attributeName=x>",
    "<svg><foreignObject><body onload={}></foreignObject></svg>",
    "<math><mtext><img src=x onerror={}></mtext></math>",
    "<math><maction actiontype=statusline xlink:href=javascript:{}>x</maction></math>",
    "<body onload={}>",
    "<body onpageshow={}>",
    "<details open ontoggle={}>",
    "<input autofocus onfocus={}>",
    "<select autofocus onfocus={}>",
    "<textarea autofocus onfocus={}>",
    "<button autofocus onfocus={}>",
    "<div tabindex=0 autofocus onfocus={}>",
    "<video><source onerror={}></video>",
    "<video src=x onerror={}>",
    "<audio src=x onerror={}>",
    "<object data='data:text/html,<script>{}</script>'></object>",
    "<embed src='data:text/html,<script>{}</script>'>",
    "<iframe srcdoc='<script>parent.{}</script>'></iframe>",
    "<iframe src=javascript:{}></iframe>",
    "<iframe src='data:text/html,<script>{}</script>'></iframe>",
    "<link rel=stylesheet href=x onerror={}>",
    "<link rel=import href='data:text/html,<script>{}</script>'>",
    "<style onload={}></style>",
    "<style>@import 'javascript:{}'</style>",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>",
    "<base href='javascript:{}//'>",
    "<marquee onstart={}>",
    "<form action=javascript:{}><input type=submit autofocus></form>",
    "<a href=javascript:{}>step 1</a>",
    "<div style=animation-name:x onanimationstart={}></div>",
    "<template><script>{}</script></template>",
    "<noscript><p title='</noscript><img src=x onerror={}>'></noscript>",
    "<x onclick={} style=position:fixed;inset:0>x</x>",
]
WORDS = [
    "javascript:{}",
    "{{{{constructor.constructor('{}')()}}}}",
    "${{{}}}",
    "{{@html '<img src=x onerror={}>'}}",
]
PAYLOADS = [text.format("window.hit=1") for text in SCRIPTS + ELEMENTS + WORDS]
PAGES = ("", "/rollouts", "/rollouts?row=0&same=yes", "/tokens", "/groups", "/length", "/diff", "/memory", "/report")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile")
    own = runs.record(place / "own", "grpo", steps=1, group_size=4, prompts_per_step=16)
    every = iter(range(10**9))

    def payload(_: Any = None) -> str:
        return PAYLOADS[next(every) % len(PAYLOADS)]

    def texts(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Every text of a table; names of rewards, which are columns, as well."""
        changed = {}
        for name, values in columns.items():
            if name == "kind":
                changed[name] = values
            elif values and isinstance(values[0], str):
                changed[name] = [payload() for _ in values]
            elif values and isinstance(values[0], list) and values[0] and isinstance(values[0][0], str):
                changed[name] = [[payload() for _ in text] for text in values]
            else:
                changed[name] = values
        return changed

    for table in ("rollouts", "tokens"):
        runs.rewrite(own / table, texts)
    runs.change(
        own,
        model=payload(),
        algorithm=payload(),
        failure=payload(),
        status="failed",
        argv=[payload() for _ in PAYLOADS],
    )
    line = json.loads((own / "metrics.jsonl").read_text().splitlines()[0])
    (own / "metrics.jsonl").write_text(json.dumps(line | {text: 1.0 for text in PAYLOADS}) + "\n")
    events = [{"step": 0, "time": 0.0, "level": "alert", "code": text, "text": text, "fix": text} for text in PAYLOADS]
    (own / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (own / "objective.txt").write_text("\n".join(PAYLOADS))
    settings = "".join(f"{json.dumps(text)} = {json.dumps(text)}\n" for text in PAYLOADS if text.isprintable())
    (own / "config.toml").write_text(settings)
    for text in PAYLOADS:  # names of runs: all that a file system takes
        if "/" not in text:
            runs.copy(own, text)
    return place


def unharmed(page: Any) -> None:
    """Nothing ran, and nothing became an element: the page's policy would stop most of these even if they had."""
    assert page.evaluate("window.hit === undefined")
    made = "script, iframe, object, embed, img, base, meta, link, video, audio, [onerror], [onload], [onfocus]"
    assert page.locator("main").locator(made).count() == 0


def test_sixty_texts_stay_texts_on_every_page(page: Any, lab: Any, hostile: Path) -> None:
    assert len(set(PAYLOADS)) == 60
    address = lab(hostile)
    page.goto(address)
    page.locator("tr[data-run]").first.wait_for()
    names = page.locator("tr[data-run] .name").all_inner_texts()
    assert sum(name in PAYLOADS for name in names) > 20
    for path in PAGES:
        page.goto(f"{address}/run/own{path}")
        page.locator("nav.tabs").wait_for()
        page.wait_for_load_state("networkidle")
        if path == "":
            page.locator("summary", has_text="What ran").click()
            page.locator("summary", has_text="All").click()
            page.locator("details [data-chart]").first.wait_for()
            page.get_by_role("button", name="All 60").click()
        if "row=0" in path:
            for row in range(2, 62):
                page.keyboard.press("n")
                page.get_by_text(f"Completion {row} of step 1").wait_for()
                page.locator("#completion").wait_for()
                unharmed(page)
        shown = page.locator("main").inner_text()
        numbers_only = path in ("/length", "/diff", "/memory")
        assert numbers_only or any(text in shown for text in PAYLOADS), path
        unharmed(page)
    page.goto(f"{address}/compare?runs=own,run-1")
    page.locator("h1").wait_for()
    page.wait_for_load_state("networkidle")
    unharmed(page)
