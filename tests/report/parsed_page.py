"""A page taken apart, so that tests can ask what it shows."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "col", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart: text, table rows as lists of cell texts, pictures and exact values."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.rows, self.pictures, self.values, self.links = "", [], [], [], []
        self.tags: list[str] = []
        self.seen: set[str] = set()
        self.feed(text)
        assert self.tags == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        found = dict(attrs)
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "data") and value]
        self.values += [found["value"]] if tag == "data" else []
        self.pictures += [(found["alt"], found["src"])] if tag == "img" else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.tags:
            return
        self.text += data.replace("\xa0", " ")
        if self.tags and {"td", "th"} & set(self.tags):
            self.rows[-1][-1] += data

    def row(self, label: str) -> list[str]:
        """Return the cells of the first row with this label."""
        return next(row[1:] for row in self.rows if row and row[0].strip().startswith(label))
