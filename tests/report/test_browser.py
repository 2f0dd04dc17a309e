"""The page in a real browser: a copy of it with a script that uses it and writes down what it saw."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from impactreg.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LISTEN = """<script>
const seen = { errors: [] };
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push("asked for " + event.blockedURI));
</script>"""
USE = """<script>
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (document.documentElement.dataset.ready !== "yes") await wait(50);
  const canvases = [...document.querySelectorAll("canvas[data-view]")];
  const pixels = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const shown = () => canvases.map((canvas) => pixels(canvas).reduce((s, v, i) => (s + v * (1 + (i % 1009))) % 1e9, 0));
  const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const differ = (a, b) => a.map((v, i) => v !== b[i]);
  const colours = (c) => new Set(pixels(c).filter((_, i) => i % 4 !== 3)).size;
  seen.blank = canvases.filter((c) => colours(c) < 2).map((c) => c.ariaLabel);
  seen.width = document.documentElement.scrollWidth;
  const first = shown();
  const slider = document.querySelector("input[type=range]");
  slider.value = Number(slider.value) + 2;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  await wait(900);
  const second = shown();
  seen.slider = differ(first, second);
  seen.sliders = [...document.querySelectorAll("input[type=range][data-plane='0']")].map((input) => input.value);
  key("ArrowLeft");
  await wait(900);
  seen.arrow = differ(second, shown());
  const modes = {};
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.click();
    await wait(600);
    modes[input.value] = shown()[2];
  }
  seen.modes = modes;
  key("f");
  await wait(600);
  const one = shown()[2];
  await wait(700);
  seen.flicker = one !== shown()[2];
  key("f");
  seen.mode = document.querySelector("input[name=mode]:checked").value;
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  seen.theme = before !== getComputedStyle(document.body).backgroundColor;
  const told = document.createElement("pre");
  told.id = "seen";
  told.textContent = JSON.stringify(seen);
  document.body.append(told);
})();
</script>"""


def opened(page: Path, folder: Path, width: int) -> tuple[Any, str]:
    """What the script saw, and what the browser logged."""
    text = (
        page.read_text(encoding="utf-8").replace("<title>", f"{LISTEN}<title>", 1).replace("</body>", f"{USE}</body>")
    )
    copy = folder / "page.html"
    copy.write_text(text, encoding="utf-8")
    assert CHROMIUM
    ended = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", f"--window-size={width},900", "--virtual-time-budget=30000", "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', ended.stdout, flags=re.DOTALL)
    assert found, ended.stderr[-2000:]
    return json.loads(html.unescape(found[1])), ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("width", [1280, 500])
def test_sliders_keys_modes_and_flicker_work_in_a_browser(finished: Path, tmp_path: Path, width: int) -> None:
    seen, log = opened(write_report(finished), tmp_path, width)
    assert seen["errors"] == []
    # the script's own reading of pixels is remarked upon
    assert [line for line in log.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line] == []
    assert seen["blank"] == []
    assert seen["width"] <= width
    # of three planes with three views each, in three sections, those of the first plane have changed
    assert seen["slider"] == [plane == 0 for _ in range(3) for plane in range(3) for _ in range(3)]
    assert len(set(seen["sliders"])) == 1
    assert any(seen["arrow"])
    assert len(set(seen["modes"].values())) >= 4
    assert seen["flicker"]
    assert seen["mode"] != "flicker"
    assert seen["theme"]
