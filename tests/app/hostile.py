"""Texts that try to be more than text: what a page, a Markdown renderer, a plot, a sheet or a terminal might run."""

MARK = "pwned"
SCRIPTS = (
    "<script>window.pwned=1</script>",
    '<img src=x onerror="window.pwned=1">',
    "<svg/onload=window.pwned=1>",
    '"><svg onload="window.pwned=1">',
    "' onmouseover='window.pwned=1' x='",
    '<iframe srcdoc="<script>parent.window.pwned=1</script>"></iframe>',
    '<a href="javascript:window.pwned=1">click</a>',
    "<details open ontoggle=window.pwned=1>",
    "<style>@import url(//evil.invalid/a.css);</style>",
    '<base href="//evil.invalid/"><link rel=stylesheet href="//evil.invalid/b.css">',
    '<img src="//evil.invalid/c.png"><video><source src="//evil.invalid/d.mp4" onerror="window.pwned=1">',
    "<math><mtext></p><img src=x onerror=window.pwned=1>",
    "<!--<img src=--><img src=x onerror=window.pwned=1//>",
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &#60;b&#62;",
)
MARKDOWN = (
    "[click](javascript:window.pwned=1)",
    "![](https://evil.invalid/e.png)",
    "**bold** _em_ `code` ~~gone~~ # heading",
    "$\\href{javascript:window.pwned=1}{x}$ \\(y\\) $$z$$",
    ":red[danger] :material/bolt: :smile:",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "```html\n<script>window.pwned=1</script>\n```",
    "https://evil.invalid/auto and www.evil.invalid",
    "<https://evil.invalid/angle>",
)
HIDDEN = (
    "abc\u202edef\u202c ghi",
    "zero\u200bwidth\u200d \u2066isolate\u2069",
    "bell\x07 escape\x1b[31mred null\x00 del\x7f",
    "byte fragments \ufffd \xc3\x28 \x80",
    "שלום עולם مرحبا",
    "👩‍👩‍👧 e\u0301\u0301\u0301\u0301",
    "line one\nline two\r\nline three\ttab",
)
OTHERS = (
    '=HYPERLINK("https://evil.invalid","click")',
    "{{7*7}} ${7*7} <%= 7*7 %> {% raw %}",
    "'; DROP TABLE latents; --",
    "../../etc/passwd",
    "x" * 10_000,
)
CORPUS = (*SCRIPTS, *MARKDOWN, *HIDDEN, *OTHERS)
