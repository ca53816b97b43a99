// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Keeps a served page fresh. The server renders; this script puts live texts in
// place, asks for parts again whose fingerprint moved, and draws charts on. It
// never turns a string into markup (Trusted Types allow no sink).
"use strict";
(() => {
  const body = document.body, view = body.dataset.view;
  const $ = (sel, root = document) => root.querySelector(sel);
  const all = (sel, root = document) => [...root.querySelectorAll(sel)];

  // --- filters: one click less than the button needs
  body.classList.add("js");
  const filters = $("form.filters");
  if (filters) filters.addEventListener("change", (e) => { if (e.target.closest("select,[type=checkbox]")) filters.requestSubmit(); });
  document.addEventListener("click", (e) => {
    for (const m of all("details.menu[open]")) if (!m.contains(e.target)) m.open = false;
  });

  // --- copying, where the browser allows it
  document.addEventListener("click", async (e) => {
    const b = e.target.closest("button[data-copy]"), from = b && document.getElementById(b.dataset.copy);
    if (!from || body.classList.contains("copies")) return;
    const said = b.textContent;
    try {
      await navigator.clipboard.writeText(from.textContent);
      b.textContent = "Copied";
    } catch { b.textContent = "Mark it and copy it by hand"; }
    setTimeout(() => { b.textContent = said; }, 2500);
  });

  // --- keys: arrows go to neighbours, b l g switch what is drawn. They can be switched
  // off (WCAG 2.1.4): speech input types letters that nobody meant.
  const keys = $("#keys");
  try { body.dataset.keys = localStorage.getItem("fulmar-keys") === "off" ? "off" : "on"; } catch { body.dataset.keys = "on"; }
  if (keys) {
    keys.checked = body.dataset.keys === "on";
    keys.addEventListener("change", () => {
      body.dataset.keys = keys.checked ? "on" : "off";
      try { localStorage.setItem("fulmar-keys", body.dataset.keys); } catch { /* for this page only */ }
    });
  }
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") for (const m of all("details.menu[open]")) m.open = false;
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input:not([type=checkbox]),select,textarea")) return;
    const box = { b: "#t-boxes", l: "#t-labels", g: "#t-truth" }[e.key];
    if (body.dataset.keys === "off" && e.key.length === 1) return;
    const rel = { ArrowLeft: "prev", ArrowRight: "next" }[e.key];
    if (box && $(box)) $(box).click();
    else if (rel && $(".viewer") && $(`a[rel=${rel}]`)) $(`a[rel=${rel}]`).click();
  });
  if (!view || !("EventSource" in window)) return;

  // --- time: the server's clock, carried on by the monotonic one
  let base = Number(body.dataset.at), since = performance.now(), clock = body.dataset.clock;
  const now = () => base + performance.now() - since;
  const age = (ms) => { // the same words as words.Age on the server
    const s = Math.max(0, Math.floor(ms / 1000)), n = (v, u) => `${Math.floor(v)}\u00a0${u} ago`;
    if (s < 2) return "now";
    if (s < 90) return n(s, "s");
    if (s < 5400) return n(s / 60, "min");
    return s < 129600 ? n(s / 3600, "h") : n(s / 86400, "d");
  };
  const ages = () => {
    const t = now();
    for (const el of all("time[data-v][data-at]")) {
      const text = age(t - el.dataset.at);
      if (el.textContent !== text) el.textContent = text;
    }
    for (const el of all(".stale[data-at]")) el.dataset.age = age(t - el.dataset.at);
  };

  // --- live or not: one word, and all values grey when not
  const word = $("#live");
  const say = (on, text) => {
    body.classList.toggle("live", on);
    body.classList.toggle("notlive", !on);
    if (word.textContent !== text) word.textContent = text;
  };
  const lost = () => say(false, `Not live since ${clock}: trying again`);

  // --- values
  let cells = new Map();
  const index = () => {
    cells = new Map();
    for (const el of all("[data-v]")) cells.set(el.dataset.v, (cells.get(el.dataset.v) || []).concat(el));
  };
  const waiting = new Map(), latest = new Map();
  const put = (key, [text, at, cls]) => {
    for (const el of cells.get(key) || []) {
      if (at) el.dataset.at = at;
      if (text && el.textContent !== text) el.textContent = text;
      el.className = cls || "";
      if (cls !== "stale") delete el.dataset.age;
    }
  };

  // --- parts: fetched as a document (no string becomes markup), swapped when their
  // pictures are there
  const want = new Set();
  let busy = false, held = false;
  const ready = (img) => img.decode ? img.decode().catch(() => {}) : Promise.resolve();
  const get = (url) => new Promise((done, fail) => {
    const x = new XMLHttpRequest();
    x.open("GET", url);
    x.responseType = "document";
    x.timeout = 20000;
    x.setRequestHeader("X-Fulmar-Part", "1");
    x.onload = () => x.status === 200 && x.response ? done(x.response) : fail(x.status);
    x.onerror = x.ontimeout = () => fail(0);
    x.send();
  });
  const hold = (el) => el.dataset.hold && (scrollY > 200 || el.contains(document.activeElement));
  const pill = (el) => {
    if ($(".pill")) return;
    const a = document.createElement("a");
    a.className = "pill";
    a.href = location.pathname + location.search;
    a.textContent = el.dataset.hold;
    body.append(a);
  };
  const refresh = async () => {
    if (busy || !want.size || document.hidden) return;
    busy = true;
    const names = [...want].slice(0, 16);
    want.clear();
    try {
      const doc = await get(view + (view.includes("?") ? "&" : "?") + "parts=" + encodeURIComponent(names.join(",")));
      for (const fresh of all("[data-part]", doc)) {
        const old = all("[data-part]").find((el) => el.dataset.part === fresh.dataset.part);
        if (!old || old.dataset.h === fresh.dataset.h) continue;
        if (hold(old)) { pill(old); continue; }
        await Promise.all(all("img", fresh).slice(0, 8).map((img) => {
          if (all("img", old).some((o) => o.getAttribute("src") === img.getAttribute("src"))) return null;
          const pre = new Image();
          pre.src = img.getAttribute("src");
          return Promise.race([ready(pre), new Promise((r) => setTimeout(r, 4000))]);
        }));
        const open = new Set(all("details[open]", old).map((d) => d.id));
        const node = document.importNode(fresh, true);
        for (const d of all("details", node)) d.open = open.has(d.id);
        old.replaceWith(node);
        if ($("h1", node) && node.dataset.part === "verdict") document.title = doc.title;
      }
      index();
      for (const [k, v] of latest) put(k, v);
      charts.find();
    } catch (status) {
      if (status === 401) location.reload();
      else if (status === 404) location.href = "/";
    }
    setTimeout(() => { busy = false; refresh(); }, 1000); // at most one a second
  };

  // --- charts: what the server drew, carried on
  const charts = (() => {
    const W = 600, H = 120;
    let data = null, list = [], url = "";
    const fmt = (v, u) => {
      const scaled = (step, names) => {
        let i = 0;
        while (i < names.length - 1 && Math.abs(v) >= step * 0.9995) { v /= step; i++; }
        const a = Math.abs(v), d = i === 0 || a >= 99.95 ? 0 : a < 9.995 ? 2 : 1;
        return `${v.toFixed(d)}\u00a0${names[i]}`;
      };
      switch (u) {
        case "celsius": return v.toFixed(1) + "\u00a0°C";
        case "percent": return v.toFixed(Math.abs(v) < 9.95 ? 1 : 0) + "\u00a0%";
        case "bytes_per_second": return scaled(1000, ["B/s", "kB/s", "MB/s", "GB/s"]);
        case "watts": return v.toFixed(1) + "\u00a0W";
      }
      return Number.isInteger(v) ? String(v) : v.toFixed(2);
    };
    const axis = (v, u) => fmt(v, u).replace(/(\.\d*?)0+(?=\u00a0|$)/, "$1").replace(/\.(?=\u00a0|$)/, "");
    const nice = (v) => {
      const p = 10 ** Math.floor(Math.log10(v));
      return [1, 2, 5].map((m) => m * p).find((m) => v <= m * 1.0000001) || 10 * p;
    };
    const scale = (lo, hi, u) => { // the same as words.scale on the server
      if (u === "percent" && hi > 50 && hi <= 100) return [Math.min(0, lo), 100];
      const least = { celsius: 10, percent: 10, bytes_per_second: 1000, watts: 5 }[u] || 1;
      if (u === "celsius" || u === "volts") {
        const step = nice(Math.max(hi - lo, least) / 4);
        lo = Math.floor(lo / step) * step;
        hi = Math.ceil(hi / step) * step;
        return [lo, Math.max(hi, lo + least)];
      }
      const step = nice(Math.max(hi, least) / 4);
      return [Math.min(0, Math.floor(lo / step) * step), Math.ceil(Math.max(hi, least) / step) * step];
    };
    const paint = () => {
      if (!data) return;
      const to = now(), from = to - data.span;
      for (const c of list) {
        let lo = Infinity, hi = -Infinity;
        for (const l of c.lines) {
          const s = data.by.get(l.name);
          if (!s) continue;
          while (s.t.length && s.t[0] < from) for (const a of [s.t, s.v, s.lo, s.hi]) if (a) a.shift();
          for (const a of [s.v, s.lo, s.hi]) for (const v of a || []) { if (v < lo) lo = v; if (v > hi) hi = v; }
        }
        if (lo > hi) continue;
        [c.low, c.high] = scale(lo, hi, c.unit);
        c.lo.textContent = axis(c.low, c.unit);
        c.hi.textContent = axis(c.high, c.unit);
        for (const l of c.lines) {
          const s = data.by.get(l.name);
          if (!s) continue;
          const at = (i, v) => ((s.t[i] - from) / data.span * W).toFixed(1) + " " + (H - (v[i] - c.low) / (c.high - c.low) * H).toFixed(1);
          let d = "", b = "", back = "", last = -Infinity;
          for (let i = 0; i < s.t.length; i++) {
            const hole = s.t[i] - last > data.hole;
            d += (hole ? "M" : "L") + at(i, s.v);
            if (s.lo) { // the band: along the highest there, along the lowest back
              if (hole) { b += back && back + "Z"; back = ""; }
              b += (hole ? "M" : "L") + at(i, s.hi);
              back = "L" + at(i, s.lo) + back;
            }
            last = s.t[i];
          }
          l.el.setAttribute("d", d);
          l.band.setAttribute("d", b + (back && back + "Z"));
        }
      }
    };
    const hover = (c) => {
      const tip = document.createElement("div");
      tip.className = "tip";
      tip.hidden = true;
      c.plot.append(tip);
      const end = () => { tip.hidden = true; c.hair.setAttribute("d", ""); };
      c.plot.addEventListener("pointerleave", end);
      c.plot.addEventListener("pointercancel", end);
      let f = 1;
      const show = () => {
        if (!data) return;
        const t = now() - data.span * (1 - f), rows = [];
        for (const l of c.lines) {
          const s = data.by.get(l.name);
          if (!s || !s.t.length) continue;
          let i = 0;
          for (let k = 1; k < s.t.length; k++) if (Math.abs(s.t[k] - t) < Math.abs(s.t[i] - t)) i = k;
          const span = s.lo && s.lo[i] < s.hi[i] ? `, ${fmt(s.lo[i], c.unit)} to ${fmt(s.hi[i], c.unit)}` : "";
          if (Math.abs(s.t[i] - t) < data.hole) rows.push(`${l.label}  ${fmt(s.v[i], c.unit)}${span}`);
        }
        c.hair.setAttribute("d", `M${(f * W).toFixed(1)} 0V${H}`);
        tip.textContent = [age(now() - t)].concat(rows.length ? rows : ["nothing stored"]).join("\n");
        tip.classList.toggle("left", f > 0.5);
        tip.hidden = false;
      };
      c.plot.addEventListener("pointermove", (e) => {
        const box = c.plot.getBoundingClientRect();
        f = Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
        show();
      });
      tip.setAttribute("role", "status"); // read out when the keys move it
      c.plot.addEventListener("blur", end);
      c.plot.addEventListener("keydown", (e) => {
        const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[e.key];
        if (!step) return;
        e.preventDefault();
        f = Math.min(1, Math.max(0, f + step));
        show();
      });
    };
    const find = () => {
      const root = $("[data-charts]");
      if (!root) return;
      list = all(".chart[data-unit]", root).map((el) => {
        const plot = $(".plot", el), c = { unit: el.dataset.unit, plot, lo: $(".lo", el), hi: $(".hi", el), hair: $(".hair", plot) };
        const labels = all(".legend .nm", el).map((n) => n.textContent);
        c.lines = all("path[data-series]", plot).map((p, i) => ({ el: p, name: p.dataset.series, label: labels[i], band: all("path[data-band]", plot)[i] }));
        if (!$(".tip", plot)) hover(c);
        return c;
      });
      if (url !== root.dataset.charts) load(root.dataset.charts);
    };
    const load = async (from) => {
      url = from;
      try {
        const r = await fetch(from);
        if (!r.ok) return;
        const j = await r.json();
        data = { span: j.span, hole: j.hole, by: new Map(j.series.map((s) => [s.name, s])) };
      } catch { url = ""; }
    };
    const add = (key, [, at, , num]) => {
      if (!data || num === undefined || !key.startsWith("r|")) return;
      const s = data.by.get(key.slice(2));
      if (!s || (s.t.length && at - s.t[s.t.length - 1] < data.span / 1000)) return;
      for (const [a, x] of [[s.t, at], [s.v, num], [s.lo, num], [s.hi, num]]) if (a) a.push(x);
    };
    return { find, add, paint, reload: () => { if (url) load(url); } };
  })();

  // --- painting: once a frame, and not at all while hidden
  let queued = false;
  const paint = () => {
    queued = false;
    for (const [k, v] of waiting) put(k, v);
    waiting.clear();
    ages();
    charts.paint();
  };
  const queue = () => { if (!queued) { queued = true; requestAnimationFrame(paint); } };

  // --- the stream
  let es = null, quiet = 0, again = 0;
  const heard = () => { clearTimeout(quiet); quiet = setTimeout(() => { lost(); connect(); }, 40000); };
  const connect = () => {
    if (es) es.close();
    clearTimeout(again);
    es = new EventSource("/live?view=" + encodeURIComponent(view));
    es.onmessage = (e) => {
      heard();
      const m = JSON.parse(e.data);
      base = m.at;
      since = performance.now();
      clock = m.clock;
      say(true, "Live");
      for (const [k, v] of Object.entries(m.v || {})) { waiting.set(k, v); latest.set(k, v); charts.add(k, v); }
      for (const [k, h] of Object.entries(m.p || {})) {
        const el = all("[data-part]").find((p) => p.dataset.part === k);
        if (el && el.dataset.h !== h) want.add(k);
      }
      refresh();
      queue();
    };
    es.addEventListener("beat", heard);
    es.addEventListener("trouble", () => { heard(); lost(); });
    es.addEventListener("bye", () => location.reload());
    es.onerror = () => {
      lost();
      if (es.readyState === EventSource.CLOSED) again = setTimeout(connect, 4000 + Math.random() * 4000);
    };
    heard();
  };
  const stop = () => { if (es) es.close(); es = null; clearTimeout(quiet); clearTimeout(again); };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { stop(); held = true; } else if (held) { held = false; charts.reload(); connect(); }
  });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (e) => { if (e.persisted) connect(); });
  setInterval(() => { if (!document.hidden) queue(); }, 1000);
  index();
  charts.find();
  connect();
})();
