// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// What forms gain from a script: the count of a query while it is typed, copying, and
// the keyboard at what is wrong. Without it everything works too.
"use strict";
(() => {
  // --- the count of a query, a moment after the last key
  for (const box of document.querySelectorAll("[data-count]")) {
    const input = document.getElementById(box.dataset.for), out = box.querySelector(".counted");
    if (!input || !out) continue;
    let timer = 0, turn = 0;
    const ask = async () => {
      const mine = ++turn;
      let text = "";
      try {
        const r = await fetch(box.dataset.count + "?q=" + encodeURIComponent(input.value.trim()));
        if (r.status === 404) return;
        const j = await r.json();
        text = j.column ? `Column ${j.column}: ${j.what}${j.do ? ". " + j.do : ""}` : j.count === 1 ? "1 board matches now" : `${j.count.toLocaleString("en")} boards match now`;
        if (mine === turn) out.classList.toggle("bad", !!j.column);
      } catch { text = "Not counted right now"; }
      if (mine === turn && out.textContent !== text) out.textContent = text;
    };
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 250); });
    ask();
  }

  // --- copying, where the browser allows it
  if (navigator.clipboard) {
    document.body.classList.add("copies");
    document.addEventListener("click", async (e) => {
      const b = e.target.closest("button[data-copy]");
      if (!b) return;
      const from = document.getElementById(b.dataset.copy);
      if (!from) return;
      const said = b.textContent;
      try {
        await navigator.clipboard.writeText(from.textContent);
        b.textContent = "Copied";
      } catch { b.textContent = "Not copied: mark it and copy it by hand"; }
      setTimeout(() => { b.textContent = said; }, 2500);
    });
  }

  // --- a form that came back goes to what is wrong
  const wrong = document.querySelector("[aria-invalid=true]") || document.getElementById("faults");
  if (wrong) wrong.focus();
})();
