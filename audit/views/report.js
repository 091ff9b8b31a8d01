"use strict";
(() => {
  // The words that let this page turn amber or green are sealed under its own SHA-256.
  const DAY = 86400000, GRACE = 3600000, BARS = 30, BOUNDS = [10, 30, 45, 90];
  const COUNTED = ["pur", "cat", "dec", "rc", "form", "dkind", "reg", "why", "meth", "mthd", "bak", "land", "ctr"];
  const SUMMED = ["nseal", "nobj", "nkey", "nowed"];
  const TEXT = {
    consistent: ["Consistent in itself", "Everything in this page fits together and is signed by the key named below. Whoever forges a page forges its key too: compare this key with one that you got elsewhere, by pasting that one here."],
    verified: ["Verified", "Everything in this page fits together and is signed by the key that you gave."],
  };
  const page = document.documentElement;
  const at = (id) => document.getElementById(id);
  const utf8 = (text) => new TextEncoder().encode(text);
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const unhex = (text) => {
    if (!/^([0-9a-f]{2})*$/.test(text)) throw Error("not lower-case hexadecimal");
    return Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));
  };
  const unbase64 = (text) => {
    const raw = atob(text);
    if (btoa(raw) !== text) throw Error("not canonical base64");
    return Uint8Array.from(raw, (char) => char.charCodeAt(0));
  };
  const sha256 = async (...parts) => {
    const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    parts.reduce((place, part) => (bytes.set(part, place), place + part.length), 0);
    return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  };
  const demand = (holds, what) => {
    if (!holds) throw Error(what);
  };

  // --- the page's own text, byte for byte --------------------------------------------------
  // A page opened as a file may not read itself, but may run itself as a script: from its first
  // line on it is a function, whose text is then the page's, and its two ends are comments of HTML.

  async function ownText() {
    const here = location.href.split("#")[0];
    if (location.protocol !== "file:") {
      const answer = await fetch(here, { cache: "force-cache" });
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await answer.arrayBuffer());
    }
    delete self.lethe;
    await new Promise((done, fail) => {
      const script = document.createElement("script");
      script.charset = "utf-8";
      script.onload = () => (script.remove(), done());
      script.onerror = () => fail(Error("the browser does not let this page read itself"));
      script.src = here;
      document.head.append(script);
    });
    demand(typeof self.lethe === "function", "the page is not as it was written");
    const [first, last] = [document.firstChild.data, document.lastChild.data];
    return "\x3c!--" + first.slice(0, -13) + self.lethe + last.slice(3) + "-->" + document.body.lastChild.data;
  }

  async function sealed() {
    const [mark, text] = ['\x3cscript type="text/plain" id="seal">', await ownText()];
    const from = text.indexOf(mark) + mark.length;
    const to = text.indexOf("\x3c/script>", from);
    demand(from >= mark.length && to > from, "the seal of the page is missing");
    const digest = await sha256(utf8(text.slice(0, from) + text.slice(to)));
    const seal = text.slice(from, to);
    return { digest, mask: unhex(seal.slice(0, 64)), note: seal.slice(65), gap: seal[64] };
  }

  // --- signed notes (c2sp.org/signed-note), Ed25519 ----------------------------------------

  async function keys(vkeys) {
    const found = [];
    for (const vkey of vkeys) {
      const [, name, id, text] = vkey.match(/^([^+]+)\+([0-9a-f]{8})\+(.+)$/);
      const typed = unbase64(text);
      demand(hex((await sha256(utf8(name + "\n"), typed)).slice(0, 4)) === id, "a key is not the one its id names");
      if (typed[0] !== 1) continue;
      const key = await crypto.subtle.importKey("raw", typed.slice(1), "Ed25519", false, ["verify"]);
      found.push({ vkey, name, id, key, print: hex(await sha256(utf8(vkey))) });
    }
    return found;
  }

  async function opened(note, known) {
    const gap = note.lastIndexOf("\n\n");
    const [body, lines] = [note.slice(0, gap + 1), note.slice(gap + 2, -1).split("\n")];
    const by = [];
    demand(gap > 0 && note.endsWith("\n"), "not a signed note");
    for (const line of lines) {
      const [, name, text] = line.match(/^\u2014 ([^ ]+) ([A-Za-z0-9+/=]+)$/);
      const bytes = unbase64(text);
      const key = known.find((one) => one.name === name && one.id === hex(bytes.slice(0, 4)));
      if (!key) continue;
      demand(await crypto.subtle.verify("Ed25519", key.key, bytes.slice(4), utf8(body)), "a signature is false");
      by.push(key);
    }
    demand(by.length > 0, "no known key has signed");
    return { body, by, lines };
  }

  // --- the tree (RFC 9162) and compact ranges ----------------------------------------------

  const node = (left, right) => sha256(Uint8Array.of(1), left, right);

  async function push(tree, hash, level) {
    tree.size += 2 ** level;
    for (let half = 2 ** level; Math.floor(tree.size / half) % 2 === 0; half *= 2) hash = await node(tree.peaks.pop(), hash);
    tree.peaks.push(hash);
  }

  async function rootOf(given, hashes) {
    const tree = { size: given.start, peaks: given.left.map(unhex) };
    for (const hash of hashes) await push(tree, hash, 0);
    for (const hash of given.right.map(unhex)) {
      let level = 0;
      while (2 ** (level + 1) <= given.size - tree.size && (tree.size === 0 || tree.size % 2 ** (level + 1) === 0)) level += 1;
      await push(tree, hash, level);
    }
    demand(tree.size === given.size, "there are not as many leaves as the checkpoint says");
    const peaks = tree.peaks.reverse();
    let root = peaks.length ? peaks[0] : await sha256();
    for (const peak of peaks.slice(1)) root = await node(peak, root);
    return hex(root);
  }

  // --- the figures, as audit/views/figures.py counts them ----------------------------------

  function figures(rows) {
    const found = new Map();
    const add = (key, much = 1) => found.set(key, (found.get(key) || 0) + much);
    const times = rows.map((row) => row.event.t);
    const now = times.reduce((a, b) => Math.max(a, b), 0);
    const first = Math.floor(times.reduce((a, b) => Math.min(a, b), times.length ? Infinity : 0) / DAY) * DAY;
    const width = Math.max(1, Math.ceil((now - first + 1) / (DAY * BARS))) * DAY;
    const [terms, gone, kinds, answers, withdrawn] = [new Map(), new Map(), new Map(), new Map(), new Set()];
    const held = new Set();
    for (const row of rows) {
      const { event } = row;
      add("events");
      add(event.ty);
      add("seals", event.seals.length);
      for (const name of COUNTED) if (name in event) add(`${event.ty}/${name}=${event[name]}`);
      for (const name of SUMMED) if (name in event) add(`${event.ty}/${name}`, event[name]);
      add(`bar/${Math.floor((event.t - first) / width)}`);
      if (event.ty === "object.sealed" || event.ty === "object.transient") terms.set(event.obj, event.exp);
      if (event.ty === "object.held") held.add(event.obj);
      if (event.ty === "object.freed") {
        held.delete(event.obj);
        if (terms.has(event.obj)) terms.set(event.obj, Math.max(terms.get(event.obj), event.t + GRACE));
      }
      if (event.ty === "object.destroyed") gone.set(event.obj, row);
      if (event.ty === "dsr.received") kinds.set(event.dsr, event.dkind);
      if (event.ty === "consent.withdrawn") withdrawn.add(event.con);
    }
    for (const [name, { event, index }] of gone) {
      if (!terms.has(name)) add("objects.before");
      else if (event.t <= terms.get(name)) add("objects.on_time");
      else {
        add("objects.late");
        add(`late/${index}`, event.t - terms.get(name));
      }
    }
    for (const [name, term] of terms) if (!gone.has(name)) add(held.has(name) ? "objects.held" : term < now ? "objects.overdue" : "objects.standing");
    for (const { event } of rows) {
      const done = kinds.get(event.dsr) === "erasure" ? "subject.erased" : "dsr.approved";
      if (kinds.has(event.dsr) && [done, "dsr.refused", "dsr.cancelled"].includes(event.ty) && !answers.has(event.dsr)) answers.set(event.dsr, event.t);
    }
    for (const { event, index } of rows) {
      if (event.ty === "consent.recorded" && !withdrawn.has(event.con) && !(event.exp <= now)) add("consents.standing");
      if (event.ty !== "dsr.received") continue;
      const span = (answers.has(event.dsr) ? answers.get(event.dsr) : now) - event.t;
      add(`request/${index}`, span);
      if (!answers.has(event.dsr)) add("requests.open");
      else {
        add("requests.answered");
        add(`requests.within/${BOUNDS.find((days) => span <= days * DAY) || "more"}`);
      }
    }
    return found;
  }

  const plain = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
  const span = (ms) => {
    if (ms < 7200000) return `${Math.floor(ms / 60000)} min`;
    if (ms < 2 * DAY) return `${Math.floor(ms / 3600000)} h`;
    return `${Math.floor(ms / DAY)}.${Math.floor((ms % DAY) * 10 / DAY)} days`;
  };

  // `a+b` is the sum of two figures.
  const figure = (found, key) => key.split("+").reduce((sum, one) => sum + (found.get(one) || 0), 0);

  function compare(found) {
    const shown = document.querySelectorAll("[data-f]");
    for (const place of shown) {
      const value = figure(found, place.dataset.f);
      demand(place.textContent === (place.dataset.as === "span" ? span(value) : plain(value)), `the figure ${place.dataset.f} is not what the leaves give`);
    }
    for (const bar of document.querySelectorAll("rect[data-of]")) {
      const [value, most, size] = [found.get(bar.dataset.of) || 0, Number(bar.dataset.most), bar.dataset.side];
      demand(Number(bar.getAttribute(size)) === Math.floor((100 * value) / most), `the bar ${bar.dataset.of} is not what the leaves give`);
    }
    return shown.length;
  }

  // --- the verdict -------------------------------------------------------------------------

  let rows = [];

  async function check(say) {
    const given = JSON.parse(at("data").textContent);
    const { digest, mask, note, gap } = await sealed();
    const known = await keys(given.vkeys);
    demand(gap === "\n" && mask.length === 32, "the seal of the page is malformed");
    const report = await opened(note, known);
    demand(report.body === `lethe.dev/audit-report/v1\n${given.origin}\nsha256 ${hex(digest)}\n`, "the page was changed after it was signed");
    demand(report.lines.length === 1 && report.by[0].name === given.origin, "the seal has not the one signature of the log");
    say("The page is, byte for byte, the one that the log's key has signed.");

    const head = await opened(given.checkpoint, known);
    const root = btoa(String.fromCharCode(...unhex(given.root)));
    demand(head.body === `${given.origin}\n${given.size}\n${root}\n`, "the checkpoint is of another log, size or root");
    const signers = head.by.filter((key) => key.name === given.origin);
    demand(signers.length > 0, "no key of the log has signed the checkpoint");
    say("The checkpoint has a true Ed25519 signature by the log's key.");

    rows = [];
    for (const [place, line] of given.leaves.entries()) {
      rows.push({ index: given.indexes[place], event: JSON.parse(line), hash: await sha256(Uint8Array.of(0), utf8(line)) });
    }
    const all = given.hashes.length ? given.hashes.map(unhex) : rows.map((row) => row.hash);
    demand(all.length === given.end - given.start, "the leaves are not those of the range");
    demand((await rootOf(given, all)) === given.root, "the leaves do not have the checkpoint's root");
    for (const row of rows) demand(hex(all[row.index - given.start]) === hex(row.hash), `entry ${row.index} is not the leaf at its place`);
    say(`The ${plain(rows.length)} entries in this page are leaves of the log: with the rest of the tree they give the checkpoint's root.`);

    say(`All ${plain(compare(figures(rows)))} figures and every bar shown are what these entries give.`);
    const words = String.fromCharCode(...digest.map((byte, place) => byte ^ mask[place]));
    return { words: [words.slice(0, 16).trim(), words.slice(16).trim()], keys: [...new Set([report.by[0], ...signers])] };
  }

  function show(word, fallback) {
    const [state, why] = TEXT[word] || ["Not verified", fallback];
    page.dataset.verdict = word;
    at("state").textContent = state;
    at("why").textContent = why;
  }

  async function verify() {
    const list = at("checks");
    const say = (text, good = true) => {
      const line = document.createElement("li");
      line.className = good ? "ok" : "no";
      line.textContent = text;
      list.append(line);
    };
    show("unverified", "Checking\u2026");
    list.replaceChildren();
    try {
      demand(self.crypto && crypto.subtle, "this browser offers no WebCrypto here");
      const { words, keys: used } = await check(say);
      const pasted = at("trusted").value.split("\n").map((line) => line.trim()).filter((line) => line);
      const unknown = pasted.length ? used.filter((key) => !pasted.includes(key.vkey) && !pasted.includes(key.print)) : [];
      demand(unknown.length === 0, "signed by another key than the one that you gave");
      if (pasted.length) say("The key is the one that you gave.");
      show(words[pasted.length ? 1 : 0], "The page does not fit its own digest.");
    } catch (fault) {
      say(`${fault.name === "NotSupportedError" ? "this browser has no Ed25519" : fault.message}.`, false);
      show("invalid", "Do not rely on this page: something in it does not hold, or could not be checked here.");
    }
    page.dataset.checked = "yes";
  }

  function list() {
    const body = at("every");
    if (!at("events").open || body.rows.length || !rows.length) return;
    for (const row of rows.slice(0, 5000)) {
      const line = body.insertRow();
      const { v, ty, id, t, n, act, seals, ...own } = row.event;
      for (const text of [row.index, new Date(t).toISOString(), ty, JSON.stringify(own), hex(row.hash).slice(0, 16)]) line.insertCell().textContent = text;
    }
  }

  at("verify").addEventListener("click", verify);
  at("events").addEventListener("toggle", list);
  document.addEventListener("DOMContentLoaded", verify);
})();
