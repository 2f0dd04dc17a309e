"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const all = (query) => [...document.querySelectorAll(query)];
  const state = { mode: "checkerboard", last: "checkerboard", phase: false, plane: 0, slices: data.planes.map((p) => p.start) };
  const HINTS = {
    images: "Each image by itself: the fixed one, the moving one before the registration, and after it.",
    checkerboard: "Tiles of the fixed image alternate with tiles of the moving one: structures should run on across their borders.",
    edges: "Edges of the moving image, in orange, over the fixed one: they should lie on the same structures.",
    difference: "Fixed minus moving: even grey means equal. Between images of different contrast, look for shapes, not for grey levels.",
    flicker: "Each picture alternates between two images: what jumps is not aligned. F ends it" + (still ? ", and Enter changes the picture." : "."),
  };
  const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
  const VOLUMES = ["1b4fa0", "7fb2e0", "f5f5f5", "e58a70", "a31621"];
  const FOLDED = [0, 230, 118];
  const EDGE = [255, 150, 40];

  /* Pictures in which all slices of something lie side by side. */
  const sheets = new Map();
  const sheet = (told) => {
    if (!sheets.has(told)) sheets.set(told, load(told));
    return sheets.get(told);
  };
  async function load(told) {
    const image = new Image();
    image.src = told.uri;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return { told, context, kept: new Map() };
  }
  function tile(sheet, number) {
    const { w, h, tile: [across, down], columns } = sheet.told;
    const x = (number % columns) * across, y = Math.floor(number / columns) * down;
    return sheet.context.getImageData(x, y, w, h).data;
  }
  function grey(sheet, number) {
    const pixels = tile(sheet, number), found = new Uint8ClampedArray(pixels.length / 4);
    for (let i = 0; i < found.length; i++) found[i] = pixels[4 * i];
    return found;
  }

  /* Small numeric tools. */
  function finer(values, w, h, columns, rows) {
    const found = new Float32Array(columns * rows);
    for (let y = 0; y < rows; y++) {
      const v = Math.min(h - 1, Math.max(0, ((y + 0.5) * h) / rows - 0.5)), y0 = Math.floor(v), y1 = Math.min(h - 1, y0 + 1), b = v - y0;
      for (let x = 0; x < columns; x++) {
        const u = Math.min(w - 1, Math.max(0, ((x + 0.5) * w) / columns - 0.5)), x0 = Math.floor(u), x1 = Math.min(w - 1, x0 + 1), a = u - x0;
        found[y * columns + x] =
          (1 - b) * ((1 - a) * values[y0 * w + x0] + a * values[y0 * w + x1]) + b * ((1 - a) * values[y1 * w + x0] + a * values[y1 * w + x1]);
      }
    }
    return found;
  }
  function colours(stops) {
    const rgb = stops.map((s) => [0, 2, 4].map((i) => parseInt(s.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, i) => {
      const place = (i / 255) * (rgb.length - 1), k = Math.min(rgb.length - 2, Math.floor(place)), t = place - k;
      return rgb[k].map((v, c) => v + t * (rgb[k + 1][c] - v));
    });
  }
  const viridis = colours(VIRIDIS), volumes = colours(VOLUMES);
  function blurred(values, w, h) {
    const kernel = [1, 4, 6, 4, 1], pass = (from, step, count, stride, lines) => {
      const to = new Float32Array(from.length);
      for (let line = 0; line < lines; line++)
        for (let i = 0; i < count; i++) {
          let sum = 0;
          for (let k = -2; k <= 2; k++) sum += kernel[k + 2] * from[line * stride + Math.min(count - 1, Math.max(0, i + k)) * step];
          to[line * stride + i * step] = sum / 16;
        }
      return to;
    };
    return pass(pass(Float32Array.from(values), 1, w, w, h), w, h, 1, w);
  }
  /* Canny's edges: ridges of the gradient that are strong, or weak and touch strong ones. */
  function edges(values, w, h) {
    const smooth = blurred(blurred(values, w, h), w, h), size = new Float32Array(w * h), found = new Uint8Array(w * h);
    const gx = new Float32Array(w * h), gy = new Float32Array(w * h);
    for (let y = 1; y < h - 1; y++)
      for (let x = 1; x < w - 1; x++) {
        const i = y * w + x;
        gx[i] = smooth[i + 1] - smooth[i - 1];
        gy[i] = smooth[i + w] - smooth[i - w];
        size[i] = Math.hypot(gx[i], gy[i]);
      }
    const stack = [], crest = [];
    const ridge = (i) => {
      const steep = Math.abs(gx[i]) > Math.abs(gy[i]), t = steep ? gy[i] / gx[i] : gx[i] / gy[i], s = t < 0 ? -1 : 1, a = Math.abs(t);
      const next = steep ? 1 : w, side = steep ? w : 1, mixed = (d) => (1 - a) * size[i + d * next] + a * size[i + d * next + d * s * side];
      return size[i] >= mixed(1) && size[i] > mixed(-1);
    };
    for (let y = 2; y < h - 2; y++)
      for (let x = 2; x < w - 2; x++) if (size[y * w + x] > 2 && ridge(y * w + x)) crest.push(y * w + x);
    const strengths = Float32Array.from(crest, (i) => size[i]).sort();
    const strong = strengths[Math.floor(strengths.length * 0.8)], weak = strong * 0.4;
    for (const i of crest) {
      if (size[i] >= weak) found[i] = 1;
      if (size[i] >= strong) stack.push(i);
    }
    while (stack.length) {
      const i = stack.pop();
      if (found[i] === 2) continue;
      found[i] = 2;
      for (const d of [1, -1, w, -w, w + 1, w - 1, -w + 1, -w - 1]) if (found[i + d] === 1) stack.push(i + d);
    }
    return found.map((v) => (v === 2 ? 1 : 0));
  }
  /* Small pictures are made larger first, so that edges stay thin. */
  const enlarged = (plane) => Math.max(1, Math.round(300 / Math.max(plane.w, plane.h)));
  function edgesOf(sheet, number, times) {
    const { w, h } = sheet.told;
    if (!sheet.kept.has(number)) sheet.kept.set(number, edges(finer(grey(sheet, number), w, h, w * times, h * times), w * times, h * times));
    return sheet.kept.get(number);
  }

  /* Views: each fills RGBA pixels. */
  const paint = (pixels, i, [r, g, b]) => {
    pixels[4 * i] = r;
    pixels[4 * i + 1] = g;
    pixels[4 * i + 2] = b;
    pixels[4 * i + 3] = 255;
  };
  const fill = (count, colour) => {
    const pixels = new Uint8ClampedArray(count * 4);
    for (let i = 0; i < count; i++) paint(pixels, i, colour(i));
    return pixels;
  };
  const plain = (values) => fill(values.length, (i) => [values[i], values[i], values[i]]);
  function size(canvas, w, h) {
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  }
  async function compared(plane, number, name, canvas) {
    const [fixed, other] = await Promise.all([sheet(plane.images.fixed), sheet(plane.images[name])]);
    const times = state.mode === "edges" ? enlarged(plane) : 1;
    size(canvas, plane.w * times, plane.h * times);
    const a = grey(fixed, number), b = grey(other, number), side = Math.max(8, Math.round(plane.w / 9));
    if (state.mode === "images") return plain(b);
    if (state.mode === "flicker") return plain(state.phase ? b : a);
    if (state.mode === "edges") {
      const line = edgesOf(other, number, times), under = finer(a, plane.w, plane.h, canvas.width, canvas.height);
      return fill(line.length, (i) => (line[i] ? EDGE : [under[i] * 0.85, under[i] * 0.85, under[i] * 0.85]));
    }
    if (state.mode === "difference") return plain(Uint8ClampedArray.from(a, (v, i) => 128 + (v - b[i]) / 2));
    return plain(a.map((v, i) => ((Math.floor((i % plane.w) / side) + Math.floor(i / plane.w / side)) % 2 ? b[i] : v)));
  }
  async function alone(plane, number) {
    const name = state.mode !== "flicker" ? "fixed" : state.phase ? "result" : "moving";
    return plain(grey(await sheet(plane.images[name]), number));
  }
  const VIEWS = {
    fixed: (plane, number, canvas) =>
      canvas.closest("#pictures") ? alone(plane, number) : sheet(plane.images.fixed).then((s) => plain(grey(s, number))),
    before: (plane, number, canvas) => compared(plane, number, "moving", canvas),
    after: (plane, number, canvas) => compared(plane, number, "result", canvas),
    async magnitude(plane, number) {
      const field = await sheet(plane.field), { w, h } = plane.field, pixels = tile(field, number);
      const length = finer(Float32Array.from({ length: w * h }, (_, i) => pixels[4 * i + 2]), w, h, plane.w, plane.h);
      return fill(length.length, (i) => viridis[Math.round(length[i])]);
    },
    async jacobian(plane, number) {
      const map = await sheet(plane.jacobian), { w, h } = plane.jacobian, values = grey(map, number);
      const level = finer(Float32Array.from(values, (v) => Math.max(v, 1)), w, h, plane.w, plane.h);
      const folded = (i) => values[Math.floor((Math.floor(i / plane.w) * h) / plane.h) * w + Math.floor(((i % plane.w) * w) / plane.w)] === 0;
      return fill(level.length, (i) => (folded(i) ? FOLDED : volumes[Math.round(((level[i] - 1) / 254) * 255)]));
    },
    async grid(plane, number, canvas) {
      const field = await sheet(plane.field), { w, h, range } = plane.field, pixels = tile(field, number);
      const times = Math.max(2, enlarged(plane)), columns = plane.w * times, rows = plane.h * times, mm = plane.pixel / times;
      size(canvas, columns, rows);
      const aside = [0, 1].map((c) => finer(Float32Array.from({ length: w * h }, (_, i) => ((pixels[4 * i + c] - 127.5) / 127.5) * range), w, h, columns, rows));
      const under = plane.images.result ? grey(await sheet(plane.images.result), number) : null;
      const step = data.step;
      const line = (c, i, along, neighbour, last) => {
        const here = along * mm + aside[c][i], other = i + neighbour, slope = Math.abs(last ? 1 : 1 + (aside[c][other] - aside[c][i]) / mm);
        const away = Math.abs(here / step - Math.round(here / step)) * step;
        return away / mm / Math.max(slope, 0.15);
      };
      return fill(columns * rows, (i) => {
        const x = i % columns, y = (i - x) / columns;
        const near = Math.min(line(0, i, x + 0.5, 1, x === columns - 1), line(1, i, y + 0.5, columns, y === rows - 1));
        const share = 0.9 * Math.min(1, Math.max(0, 1.25 - near)), base = under ? under[Math.floor(y / times) * plane.w + Math.floor(x / times)] * 0.6 : 12;
        return [base + share * (90 - base), base + share * (205 - base), base + share * (250 - base)];
      });
    },
  };
  data.features.forEach((_, layer) => {
    for (const side of ["fixed", "moving"])
      VIEWS[`features-${side}-${layer}`] = async (plane, number, canvas) => {
        const told = plane.features[layer][side];
        size(canvas, told.w, told.h);
        return new Uint8ClampedArray(tile(await sheet(told), number));
      };
  });

  /* Drawing: the latest wish of a canvas counts. */
  const canvases = all("canvas[data-view]");
  const wishes = new WeakMap();
  async function draw(canvas) {
    const plane = data.planes[canvas.dataset.plane], number = state.slices[canvas.dataset.plane], wish = {};
    wishes.set(canvas, wish);
    const pixels = await VIEWS[canvas.dataset.view](plane, number, canvas);
    if (wishes.get(canvas) !== wish) return;
    canvas.getContext("2d").putImageData(new ImageData(pixels, canvas.width, canvas.height), 0, 0);
    canvas.dataset.drawn = `${number}`;
    label(canvas, plane, number);
  }
  function caption(view) {
    const { mode, phase } = state;
    if (mode === "flicker" && view === "fixed") return phase ? "After (result)" : "Before (moving)";
    if (view === "fixed") return "Fixed";
    const [when, what] = view === "before" ? ["Before", "moving"] : ["After", "result"];
    return {
      images: `${when} (${what})`,
      checkerboard: `${when}: fixed and ${what} in tiles`,
      edges: `${when}: edges of the ${what} over fixed`,
      difference: `${when}: fixed minus ${what}`,
      flicker: phase ? `${when} (${what})` : "Fixed",
    }[mode];
  }
  function label(canvas, plane, number) {
    const shown = canvas.closest("figure").querySelector("figcaption");
    if (canvas.closest("#pictures")) shown.textContent = caption(canvas.dataset.view);
    const place = plane.slices > 1 ? `, slice ${number + 1} of ${plane.slices}` : "";
    canvas.setAttribute("aria-label", `${plane.name}${place}: ${shown.textContent}`);
  }
  const visible = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target);
      else visible.delete(target);
      if (isIntersecting && target.dataset.stale !== "no") refresh(target);
    }
  }, { rootMargin: "300px" });
  function refresh(canvas) {
    canvas.dataset.stale = "no";
    return draw(canvas);
  }
  let timer = 0;
  /* What is out of sight is drawn a little later, so that a print is complete. */
  let later = 0;
  function changed(which) {
    for (const canvas of canvases.filter(which)) {
      if (visible.has(canvas)) refresh(canvas);
      else canvas.dataset.stale = "yes";
    }
    clearTimeout(later);
    if (!timer) later = setTimeout(() => canvases.filter((canvas) => canvas.dataset.stale === "yes").forEach(refresh), 400);
  }

  const where = (plane, number) => `${plane.axis[plane.positions[number] < 0 ? 0 : 1]} ${Math.abs(plane.positions[number])} mm`;
  function slice(index, number) {
    const plane = data.planes[index], to = Math.min(plane.slices - 1, Math.max(0, number));
    state.plane = index;
    state.slices[index] = to;
    for (const input of all(`input[type=range][data-plane="${index}"]`)) {
      input.value = to;
      input.setAttribute("aria-valuetext", `slice ${to + 1} of ${plane.slices}, ${where(plane, to)}`);
    }
    for (const output of all(`output[data-plane="${index}"]`))
      output.textContent = `${to + 1} / ${plane.slices}, ${where(plane, to)}`;
    changed((canvas) => Number(canvas.dataset.plane) === index);
  }
  function mode(name) {
    if (name === "flicker" && state.mode !== "flicker") state.last = state.mode;
    state.mode = name;
    clearInterval(timer);
    timer = 0;
    if (name === "flicker" && !still) timer = setInterval(flip, 700);
    const hint = document.getElementById("hint");
    if (hint) hint.textContent = HINTS[name];
    for (const input of all("input[name=mode]")) input.checked = input.value === name;
    changed((canvas) => canvas.closest("#pictures"));
  }
  function flip() {
    state.phase = !state.phase;
    changed((canvas) => canvas.closest("#pictures"));
  }
  function copy(button) {
    const text = document.getElementById(button.dataset.copy).textContent;
    const done = () => {
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    };
    const byHand = () => {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
      done();
    };
    if (navigator.clipboard && isSecureContext) navigator.clipboard.writeText(text).then(done, byHand);
    else byHand();
  }
  const theme = document.getElementById("theme");
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  function tellTheme() {
    theme.textContent = dark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Change to ${dark() ? "light" : "dark"} colours`);
  }
  theme.removeAttribute("aria-pressed");
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    tellTheme();
  });
  tellTheme();
  for (const input of all("input[type=range]")) input.addEventListener("input", () => slice(Number(input.dataset.plane), Number(input.value)));
  /* After a click the arrow keys belong to the slices; chosen by keyboard, they stay with the modes. */
  let pointed = false;
  for (const group of all(".modes")) group.addEventListener("pointerdown", () => (pointed = true));
  for (const input of all("input[name=mode]"))
    input.addEventListener("change", () => {
      mode(input.value);
      if (pointed) input.blur();
      pointed = false;
    });
  for (const button of all("button[data-copy]")) button.addEventListener("click", () => copy(button));
  for (const canvas of canvases) canvas.addEventListener("pointerdown", () => (state.plane = Number(canvas.dataset.plane)));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target, writes = target.matches("input[type=range], textarea, .scroll") || target.name === "mode";
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "f" || event.key === "F") {
      if (all("input[name=mode]").length) mode(state.mode === "flicker" ? state.last : "flicker");
    } else if (event.key === "Enter" && still && state.mode === "flicker" && !target.matches("button, summary, a")) flip();
    else if (step && !writes) {
      slice(state.plane, state.slices[state.plane] + step);
      event.preventDefault();
    }
  });
  data.planes.forEach((plane, index) => slice(index, plane.start));
  state.plane = 0;
  mode(state.mode);
  for (const canvas of canvases) watcher.observe(canvas);
  addEventListener("beforeprint", () => state.mode === "flicker" && mode(state.last));
  Promise.all(canvases.map(refresh)).then(() => (document.documentElement.dataset.ready = "yes"));
})();
