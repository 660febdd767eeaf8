"""Screenshots of the explorer for the docs: ``python -m tests.explorer.screenshots RUN OUT``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from pyro_riemann.explorer import load_run, run_page
from tests.explorer.browser import chromium, click_chart, save_whole_page


def main(run: Path, out: Path) -> None:
    """Write ``geodesic.png``, ``brownian.png`` and ``dark.png`` to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explorer.html"
        file.write_text(run_page(load_run(run)), encoding="utf-8")
        for name, dark in (("geodesic", False), ("brownian", False), ("dark", True)):
            with chromium(1200, 900, dark=dark) as driver:
                driver.get(file.as_uri())
                if name == "brownian":
                    driver.find_element("id", "prior").click()
                    while not driver.execute_script("return explorer.state.walk.steps >= STEPS"):
                        time.sleep(0.1)
                else:
                    first, second = driver.execute_script(FAR_PAIR)
                    click_chart(driver, *first)
                    click_chart(driver, *second)
                save_whole_page(driver, out / f"{name}.png", scale=0.75)  # as wide as the docs show it
                errors = driver.get_log("browser")
                if errors:
                    raise RuntimeError(f"the page's console says {errors}.")


# Of pairs of codes from a fixed sequence, the one whose geodesic saves the most.
FAR_PAIR = """
const graph = new PathGraph(explorer.table, GRAPH_NODES);
const source = new RandomSource(3);
let best = null;
for (let trial = 0; trial < 60; trial++) {
  const [a, b] = [0, 1].map(() => {
    const k = Math.floor(source.uniform() * explorer.labels.length);
    return [explorer.codes[2 * k], explorer.codes[2 * k + 1]];
  });
  const curve = geodesic(explorer.table, graph, a, b);
  const saved = polygonLength(explorer.table, Float64Array.of(...a, ...b), LINE_PIECES) - curve.length;
  if (curve.converged && (best === null || saved > best.saved)) best = {saved, ends: [a, b]};
}
return best.ends;
"""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.explorer.screenshots RUN OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
