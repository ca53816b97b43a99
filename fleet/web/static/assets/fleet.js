// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What the page of the fleet gains from a script: the count of a query while it is typed,
// what may come next, and the names of the dots. Without it the form and the table do.
"use strict";
(() => {
  // --- the query: counted a moment after the last key
  const form = document.querySelector("form.query"), input = form && form.querySelector("#q"), said = document.getElementById("counted");
  if (input) {
    let timer = 0, turn = 0;
    const say = (text, bad) => {
      said.classList.toggle("bad", bad);
      input.toggleAttribute("aria-invalid", bad);
      if (bad) input.setAttribute("aria-invalid", "true");
      if (said.textContent !== text) said.textContent = text;
    };
    const cap = (s) => s && s[0].toUpperCase() + s.slice(1);
    const ask = async () => {
      const mine = ++turn, q = input.value;
      try {
        const r = await fetch(form.dataset.check + "?q=" + encodeURIComponent(q));
        if (!r.ok || mine !== turn) return;
        const j = await r.json();
        if (j.column) say(`Column ${j.column}: ${j.what}${j.do ? ". " + cap(j.do) : ""}`, true);
        else say((j.count === 1 ? "1 board matches" : `${j.count.toLocaleString("en")} boards match`) + (j.hint ? ". " + cap(j.hint) : ""), false);
        const stem = /[^\s(),=<>~!"]*$/.exec(q), before = q.slice(0, stem ? stem.index : q.length);
        document.getElementById("qs").replaceChildren(...(j.complete || []).map((c) => {
          const o = document.createElement("option");
          o.value = before + c;
          return o;
        }));
      } catch { /* not counted: the form itself still works */ }
    };
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 200); });
    document.addEventListener("keydown", (e) => {
      if (e.key === "/" && document.body.dataset.keys !== "off" && !e.ctrlKey && !e.metaKey && !e.altKey && !e.target.closest("input,select,textarea")) {
        e.preventDefault();
        input.focus();
        input.select();
      }
    });
  }

  // --- the dots: which board is under the pointer
  const tip = document.createElement("div");
  tip.className = "float";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // the table says the same to those who cannot point
  document.body.append(tip);
  const known = new Map(); // of a drawing: its boards, asked for once
  const boards = (svg) => {
    if (!known.has(svg)) {
      known.set(svg, fetch("/fleet/dots?site=" + svg.dataset.site).then((r) => r.ok ? r.json() : []).catch(() => []));
    }
    return known.get(svg);
  };
  const at = (svg, e) => {
    const box = svg.getBoundingClientRect(), across = Number(svg.dataset.across), n = Number(svg.dataset.n);
    const cell = box.width / across;
    const i = Math.floor((e.clientY - box.top) / cell) * across + Math.min(across - 1, Math.floor((e.clientX - box.left) / cell));
    return i >= 0 && i < n ? i : -1;
  };
  document.addEventListener("pointermove", async (e) => {
    const svg = e.target.closest && e.target.closest("svg.dots");
    if (!svg) { tip.hidden = true; return; }
    const i = at(svg, e), list = await boards(svg), b = list[i];
    if (list.length !== Number(svg.dataset.n)) known.delete(svg); // boards came or went: asked again
    tip.hidden = !b;
    if (!b) return;
    tip.textContent = b.h ? b.n + "\n" + b.h : b.n;
    tip.style.left = Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = (e.clientY + 18 + tip.offsetHeight > innerHeight ? e.clientY - 10 - tip.offsetHeight : e.clientY + 18) + "px";
  });
  document.addEventListener("click", async (e) => {
    const svg = e.target.closest && e.target.closest("svg.dots");
    if (!svg) return;
    const i = at(svg, e), b = (await boards(svg))[i];
    if (b) location.href = "/boards/" + encodeURIComponent(b.n);
  });
})();
