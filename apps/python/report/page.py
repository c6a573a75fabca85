"""One self-contained page: sections of inlined figures and tables."""
import html
import io
import re
import urllib.parse

import matplotlib.pyplot as plt

from program import write_durably
from report.style import plain


class Page:
    """Collects sections; saves each panel beside the page as PDF and PNG and inlines it as SVG."""

    def __init__(self, run, simulated):
        self.folder, self.simulated, self.sections = run / "figures", simulated, []
        self.left_out = []  # what could not be drawn, and why
        self.folder.mkdir(exist_ok=True)

    def guarded(self, what, draw, *arguments):
        """The HTML that draw() makes. Files of a run may hold anything: where they cannot be drawn, a note says what is
        left out, and the rest of the page stands. What cannot be written is an error of the disk all the same."""
        try:
            return draw(*arguments)
        except OSError:
            raise
        except Exception as error:
            plt.close("all")
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self.left_out.append(f"{what} ({reason})")
            return f'<p class="missing">Left out: {html.escape(what)} cannot be drawn from the files of this run.</p>'

    def section(self, anchor, title, body):
        self.sections.append((anchor, title, body))

    def panel(self, entries=0, height=3.7, **options):
        """Axes of one panel with room below for a legend of so many entries. One figure a panel: they flow into one
        column on a phone."""
        figure, axes = plt.subplots(figsize=(5.6, height + 0.21 * -(-entries // 2)), **options)
        return figure, axes

    def stamp(self, ax, right=""):
        ax.set_title(r"$\bf{Tessera}$" + (" simulation" if self.simulated else ""), loc="left", fontsize=11)
        ax.set_title(plain(right), loc="right", fontsize=10, color="#444444")

    def figures(self, panels, caption):
        """`panels`: (name, what it shows, how to draw its figure)."""
        images = "".join(self.guarded(alt, self.drawn, name, alt, draw) for name, alt, draw in panels)
        return f'<figure><div class="grid">{images}</div><figcaption>{caption}</figcaption></figure>'

    def drawn(self, name, alt, draw):
        return self.image(re.sub(r"[^A-Za-z0-9@_.+-]", "_", name), alt, draw())

    def image(self, name, alt, figure):
        figure.canvas.draw()
        figure.set_layout_engine("none")  # laid out once, not at every save
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", None)):
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=160, metadata=metadata)
            write_durably(self.folder / f"{name}.{kind}", data.getvalue())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        plt.close(figure)
        return f'<img alt="{html.escape(alt, quote=True)}" src="{data_uri(compact(buffer.getvalue()))}">'


def compact(svg):
    """Less than half of the size: no comments, indentation, names and repeated tick styles; a hundredth of a point."""
    svg = re.sub(r"<\?xml.*?\?>|<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE.*?>", "", svg, flags=re.S)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg).replace("DejaVuSans-", "f")
    svg = re.sub(r'(<use [^>]*?) style="stroke: #000000; stroke-width: [\d.]+"', r"\1", svg)  # as in its definition
    svg = re.sub(r"scale\([^)]*\)|(\.\d\d)\d+", lambda m: m.group(1) or m.group(), svg)
    return re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", svg)).strip()


def data_uri(svg):
    """For an attribute in double quotes; base64 would add a third."""
    encoded = urllib.parse.quote(svg.replace('"', "'"), safe=" /:;,='()<>&+*")
    return "data:image/svg+xml," + encoded.replace("&", "&amp;")


def missing(what, path):
    return f'<p class="missing">No {html.escape(what)} in this run: <code>{html.escape(path)}</code> is absent or empty.</p>'


def table_html(head, rows):
    """`rows`: (class, cells); every column but the first holds numbers."""
    line = lambda tag, cells: "".join(f"<{tag}{' class=n' if i else ''}>{c}</{tag}>" for i, c in enumerate(cells))
    body = "".join(f"<tr{f' class={kind}' if kind else ''}>{line('td', cells)}</tr>" for kind, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{line("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def grouped(count):
    return f"{count:,.0f}".replace(",", "&#8239;") if count else "&ndash;"


CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;color:#1f2328;background:#f6f8fa;margin:0}
main,header>div{max-width:1120px;margin:0 auto;padding:0 20px}header{background:#fff;border-bottom:1px solid #d8dee4;padding:26px 0 20px}
h1{margin:0 0 4px;font-size:30px;letter-spacing:-.01em;overflow-wrap:anywhere}header p{margin:0;color:#57606a}
nav{padding:16px 0}nav ol{display:flex;flex-wrap:wrap;gap:4px 28px;margin:4px 0 0;padding-left:20px}nav li{padding-right:6px}
a{color:#0550ae;text-decoration:none}a:hover{text-decoration:underline}
section{background:#fff;border:1px solid #d8dee4;border-radius:10px;padding:8px 26px 20px;margin:0 0 22px}
h2{font-size:22px;margin:14px 0 8px}h3{font-size:17px;margin:22px 0 6px}p{max-width:860px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:15px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:#57606a;border-bottom:2px solid #d8dee4;padding:6px 14px 6px 0;vertical-align:bottom}
td{border-bottom:1px solid #eaeef2;padding:6px 14px 6px 0;white-space:nowrap}.n{text-align:right}td small{color:#57606a}
td i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:9px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
td b,.mark{display:inline-block;background:#dff3e4;border-radius:4px;padding:1px 5px;margin:0 -5px;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.mark{margin:0;line-height:1.3}tr.base td{color:#57606a}tr.total td{font-weight:600;border-bottom:0}
figure{margin:14px 0 4px}.grid{display:flex;flex-wrap:wrap;justify-content:center;gap:14px 26px}.grid img{width:calc(50% - 13px);min-width:0;height:auto}
.grid img:only-child{width:min(100%,600px)}figcaption{color:#57606a;font-size:14px;max-width:860px;margin:8px auto 12px}
summary{cursor:pointer;color:#0550ae;margin:4px 0 8px}
.missing{color:#57606a;background:#f6f8fa;border-left:3px solid #d8dee4;padding:8px 12px}.damaged{border-left:3px solid #d55e00;padding:8px 12px;background:#fff4ec}
code{font-size:.9em;background:#eff2f5;padding:1px 4px;border-radius:4px;overflow-wrap:anywhere}
@media(max-width:700px){main,header>div{padding:0 10px}section{padding:4px 12px 14px;border-radius:8px}h1{font-size:24px}body{font-size:15px}
.grid img,.grid img:only-child{width:100%}table{font-size:13px}td,th{padding-right:10px}td:first-child{white-space:normal;min-width:118px;overflow-wrap:anywhere}
td small{display:block}nav ol{display:block;columns:2}#run table td{white-space:normal;overflow-wrap:anywhere}}
@media print{body{background:#fff;font-size:10pt}header{border:0;padding:0}nav{padding:4px 0}section{border:0;padding:0;margin:0 0 12px}
main,header>div{max-width:none;padding:0}.grid img{width:calc(50% - 13px)}.grid img:only-child{width:60%}table{font-size:9pt}td,th{padding:3px 10px 3px 0}
img,tr{break-inside:avoid}h2,h3,thead{break-after:avoid}figcaption{break-before:avoid}.scroll{overflow:visible}details{display:none}}
"""


def render(page, run, name):
    links = "".join(f'<li><a href="#{a}">{html.escape(t)}</a></li>' for a, t, _ in page.sections)
    body = "".join(f'<section id="{a}"><h2>{html.escape(t)}</h2>{b}</section>' for a, t, b in page.sections)
    origin = "Simulated collisions" if page.simulated else "Collision data"
    damaged = f'<p class="damaged">Left out, because they cannot be read: {html.escape(", ".join(run.damaged))}.</p>' if run.damaged else ""
    if page.left_out:
        damaged += f'<p class="damaged">Left out, because it cannot be drawn: {html.escape("; ".join(page.left_out))}.</p>'
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>Tessera: {html.escape(name)}</title><style>{CSS}</style></head><body><header><div><h1>Tessera &middot; {html.escape(name)}</h1>"
            f"<p>{origin}. Everything below is drawn from the files of this run.</p></div></header>"
            f"<main><nav><b>Contents</b><ol>{links}</ol></nav>{damaged}{body}</main></body></html>\n")
