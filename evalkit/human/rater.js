// One rater's page. Python decides and stores; this file draws `view`, sends presses, and says loudly when no answer comes.
const CHOICES = [
  ["left", "A is better", "1"],
  ["right", "B is better", "2"],
  ["tie", "About the same", "3"],
  ["both_bad", "Both bad", "4"],
];
const FIRST_REASON_KEY = 5;
const GUARD_MS = 350; // a double press must not hit the next pair
const TIMEOUT_MS = 4000;
const ABOUT =
  "You see one input and two answers, in random order; which model wrote which stays hidden. " +
  "Each choice is saved at once. Stop when you like: you go on where you stopped.";
const DEAD =
  "NOT SAVED: the program behind this page did not answer. Reload the page (in a notebook: run the cell again). " +
  "Your earlier ratings are kept.";

function make(tag, parent, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

// A rubric is a text file, often Markdown: headings, list items and paragraphs are told apart, and nothing else.
function prose(parent, text) {
  parent.replaceChildren();
  let open = null;
  for (const line of text.split("\n").map((one) => one.trim())) {
    const heading = /^#+\s+(.*)/.exec(line);
    const item = /^([-*]|\d+[.)])\s/.test(line);
    if (heading) make("h3", parent, { dir: "auto" }, heading[1]);
    if (heading || !line) open = null;
    else if (open && !item) open.textContent += ` ${line}`;
    else open = make("p", parent, { class: item ? "ek-item" : "", dir: "auto" }, line);
  }
}

function textBox(parent, title, label) {
  const article = make("article", parent, { class: "ek-card" });
  make("h3", article, {}, title);
  return make("div", article, { class: "ek-text", dir: "auto", tabindex: "0", role: "group", "aria-label": label });
}

// A conversation as `evalkit.conversation.structure` lays it out; the same elements as its HTML form.
function said(parent, turn) {
  for (const { kind, text } of turn.parts) {
    const box = make("div", parent, { class: kind === "named" ? "ek-said ek-named" : "ek-said" });
    make("bdi", box, { class: "tex2jax_ignore mathjax_ignore" }, text);
  }
}

function turnOf(parent, turn) {
  const box = make(turn.opening ? "details" : "div", parent, { class: "ek-turn" });
  const head = turn.opening ? make("summary", box) : box;
  make("b", head, { class: "ek-role" }, turn.role);
  if (turn.opening) {
    const length = turn.parts.reduce((sum, part) => sum + [...part.text].length, turn.parts.length - 1);
    head.append(" ");
    make("bdi", head, { class: "tex2jax_ignore mathjax_ignore" }, turn.opening);
    head.append(" ");
    make("small", head, {}, `(${length.toLocaleString("en")} characters)`);
  }
  said(box, turn);
}

function talk(parent, { turns, n_earlier: nEarlier, bare }) {
  parent.replaceChildren();
  if (bare) return said(parent, turns[0]);
  const all = make("div", parent, { class: "ek-talk" });
  const earlier = nEarlier && make("details", all, { class: "ek-turn" });
  if (earlier) make("summary", earlier, {}, `${nEarlier} earlier messages`);
  turns.forEach((turn, i) => turnOf(i < nEarlier ? earlier : all, turn));
}

// Of a conversation longer than its box the last message, which was answered, is in sight: from its start, else to its end.
function showLast(box) {
  const last = box.querySelector(".ek-talk > :last-child")?.getBoundingClientRect();
  const seen = box.getBoundingClientRect();
  if (last) box.scrollTop = Math.min(last.top - seen.top, last.bottom - seen.bottom);
}

function button(parent, label, key, attributes = {}) {
  const node = make("button", parent, { type: "button", "aria-disabled": "false", ...attributes }, label);
  if (key) {
    node.setAttribute("aria-keyshortcuts", key);
    node.append(" ");
    make("kbd", node, { "aria-hidden": "true" }, key);
  }
  return node;
}

// The fixed parts of the page; what changes is filled in by `draw`.
function build(el) {
  const root = make("section", el, {
    class: "ek-rater",
    tabindex: "0",
    "aria-label": "Blind rating",
    "data-lm-suppress-shortcuts": "true", // else JupyterLab cuts cells when a rater types
  });
  const banner = make("p", root, { class: "ek-banner", hidden: "" });
  const top = make("div", root, { class: "ek-top" });
  const status = make("p", top, { class: "ek-status", role: "status" });
  const bar = make("progress", top, { "aria-label": "Share of pairs rated" });
  const notice = make("p", root, { class: "ek-notice", role: "status" });
  const alert = make("p", root, { class: "ek-alert", role: "alert", hidden: "" });
  const work = make("div", root, { class: "ek-work" });
  const question = make("h2", work);
  const rubric = make("details", work, { class: "ek-rubric", open: "" });
  make("summary", rubric, {}, "How to judge");
  make("p", rubric, {}, ABOUT);
  const guidance = make("div", rubric, { class: "ek-plain" });
  const input = textBox(work, "Input", "Input");
  const grid = make("div", work, { class: "ek-grid" });
  const left = textBox(grid, "Answer A", "Answer A");
  const right = textBox(grid, "Answer B", "Answer B");
  const why = make("div", work, { role: "group", "aria-label": "Reasons, optional" });
  make("h3", why, {}, "Reasons (optional; tick before you choose)");
  const reasons = make("div", why, { class: "ek-reasons" });
  const label = make("label", work, { class: "ek-note" }, "Note (optional) ");
  const note = make("textarea", label, { rows: "1", maxlength: "2000" });
  const buttons = make("div", root, { class: "ek-buttons", role: "group", "aria-label": "Your judgement" });
  return { root, banner, status, bar, notice, alert, work, question, rubric, guidance, input, left, right, why, reasons, note, buttons };
}

function render({ model, el }) {
  const inVoila = document.body.dataset.voila === "voila";
  const page = build(el);
  let pending = null;
  let unanswered = null;
  let timer = 0;
  let drawnAt = 0;
  let shown = null;
  let folded = false;

  const choose = Object.fromEntries(
    CHOICES.map(([choice, text, key]) => [choice, button(page.buttons, text, key, { "data-choice": choice })])
  );
  const undo = button(page.buttons, "Undo", "u", { "data-choice": "undo" });

  function setBusy() {
    const { state, can_undo } = model.get("view");
    for (const node of Object.values(choose)) node.setAttribute("aria-disabled", String(Boolean(pending) || state !== "rating"));
    undo.setAttribute("aria-disabled", String(Boolean(pending) || !can_undo));
  }

  function say(message) {
    page.alert.textContent = message;
    page.alert.hidden = !message;
  }

  function send(message) {
    if (pending || performance.now() - drawnAt < GUARD_MS) return;
    pending = `${Date.now()}-${Math.random()}`;
    say("");
    setBusy();
    timer = setTimeout(giveUp, TIMEOUT_MS);
    try {
      model.send({ ...message, seq: pending });
    } catch {
      giveUp();
    }
  }

  function giveUp() {
    clearTimeout(timer);
    unanswered = pending;
    pending = null;
    say(DEAD);
    setBusy();
  }

  function vote(choice, via) {
    const view = model.get("view");
    if (view.state !== "rating") return;
    const picked = [...page.reasons.querySelectorAll('[aria-pressed="true"]')].map((node) => node.dataset.reason);
    const seconds = (performance.now() - drawnAt) / 1000;
    send({ kind: "vote", item_id: view.item.id, choice, reasons: picked, note: page.note.value, seconds, via });
  }

  function takeBack() {
    if (model.get("view").can_undo) send({ kind: "undo" });
  }

  function answered(message) {
    if (message.kind !== "ack" || ![pending, unanswered].includes(message.seq)) return;
    clearTimeout(timer);
    pending = unanswered = null;
    say(message.ok ? "" : `NOT SAVED: ${message.error}`);
    setBusy();
  }

  function toggle(node) {
    node.setAttribute("aria-pressed", String(node.getAttribute("aria-pressed") !== "true"));
  }

  function drawReasons(names) {
    page.why.hidden = !names.length;
    page.reasons.replaceChildren();
    names.forEach((name, i) => {
      const key = i + FIRST_REASON_KEY <= 9 ? String(i + FIRST_REASON_KEY) : "";
      const node = button(page.reasons, name, key, { "aria-pressed": "false" });
      node.dataset.reason = name;
      node.addEventListener("click", () => toggle(node));
    });
  }

  function drawItem(view) {
    const isNext = shown !== null;
    shown = view.item.id;
    drawnAt = performance.now();
    page.question.textContent = view.question;
    if (!folded && view.done) page.rubric.open = !(folded = true); // once: whoever opens it again keeps it open
    talk(page.input, view.conversation);
    page.left.textContent = view.item.left ?? "";
    page.right.textContent = view.item.right ?? "";
    for (const box of [page.input, page.left, page.right]) box.scrollTop = 0;
    showLast(page.input);
    page.note.value = "";
    drawReasons(view.reasons);
    // after the layout has settled: a folded guide may leave the notebook scrolled past its end
    if (isNext) requestAnimationFrame(() => page.status.scrollIntoView({ block: "nearest" }));
  }

  function draw() {
    const view = model.get("view");
    const rating = view.state === "rating";
    const words = { rating: `Pair ${view.done + 1} of ${view.total}`, done: `You are done: all ${view.total} pairs are rated. Thank you; you may close this page.` };
    page.status.textContent = words[view.state] ?? "This round is closed. Thank you.";
    page.banner.textContent = view.banner;
    page.banner.hidden = !view.banner;
    if (page.root.dataset.rev === undefined) prose(page.guidance, view.rubric ?? "");
    page.bar.max = view.total;
    page.bar.value = view.done;
    page.notice.textContent = view.notice;
    page.work.hidden = !rating;
    page.root.classList.toggle("ek-over", !rating);
    for (const node of Object.values(choose)) node.hidden = !rating;
    undo.hidden = view.state === "closed";
    if (!rating) shown = null;
    else if (view.item.id !== shown) drawItem(view);
    page.root.dataset.rev = view.rev;
    setBusy();
  }

  function pressed(event) {
    const typing = event.target.closest?.("textarea, input, select, [contenteditable]");
    if (event.key === "Escape" && typing) page.root.focus({ preventScroll: true });
    if (typing || event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const choice = CHOICES.find((one) => one[2] === key);
    const reason = [...page.reasons.children].find((node) => node.getAttribute("aria-keyshortcuts") === key);
    if (!choice && !reason && key !== "u") return;
    event.preventDefault();
    event.stopPropagation();
    if (choice) vote(choice[0], "key");
    else if (reason) toggle(reason);
    else takeBack();
  }

  for (const [choice, node] of Object.entries(choose)) node.addEventListener("click", () => vote(choice, "click"));
  undo.addEventListener("click", takeBack);
  // a button clicked with the mouse gives the focus back, else the next key would draw a ring around it
  page.root.addEventListener("click", (event) => {
    if (event.detail && event.target.closest("button")) page.root.focus({ preventScroll: true });
  });
  if (inVoila) page.root.tabIndex = -1; // keys work anywhere on that page, so the whole is no stop of its own
  // Voila's page has nothing else on it; in JupyterLab the keys belong to the notebook unless the rater has the focus.
  const listener = inVoila ? document : page.root;
  // JupyterLab looks at the focused element before it looks at what holds it: "x" on a button would cut the cell
  page.root.addEventListener("focusin", (event) => (event.target.dataset.lmSuppressShortcuts = "true"));
  listener.addEventListener("keydown", pressed);
  model.on("change:view", draw);
  model.on("msg:custom", answered);
  draw();
  return () => {
    clearTimeout(timer);
    listener.removeEventListener("keydown", pressed);
    model.off("change:view", draw);
    model.off("msg:custom", answered);
  };
}

export default { render };
