"""Checks that every relative link in the Markdown files leads to a file, and to a heading where it names one."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"^#+\s+(.+?)\s*#*$", re.MULTILINE)


def main() -> int:
    """Prints every broken link; returns the exit status."""
    broken = [problem for page in pages() for problem in broken_links(page)]
    sys.stderr.write("".join(f"{problem}\n" for problem in broken))
    return 1 if broken else 0


def pages() -> list[Path]:
    """Every Markdown file of the project, tracked or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 - git
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def broken_links(page: Path) -> list[str]:
    """One sentence for each link of a page that leads nowhere."""
    text = FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), page.read_text(encoding="utf-8"))
    problems = []
    for match in LINK.finditer(text):
        target, _, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / unquote(target)).resolve() if target else page
        line = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        if not path.exists():
            problems.append(f"{line}: there is no {target}")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            problems.append(f"{line}: {target or page.name} has no heading #{anchor}")
    return problems


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on code hosting sites."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text)]
    return {heading.replace(" ", "-") for heading in plain}


if __name__ == "__main__":
    sys.exit(main())
