// The page: asks /api with the token, listens to /events, and shows everything as text (never as markup).

const KEPT = 100; // decisions on the page
const LOOK = 5000; // milliseconds between looks at status, modes and curve
const RETRY = 2000; // milliseconds before the stream is opened again
const DOUBTS = 8; // doubted words that are listed
const MODES = ["observe", "apprentice", "confirm", "act"];
const $ = (id) => document.getElementById(id);

// ---- the token: from the link's fragment, once, then from this tab's own storage ---------------------------------
if (location.hash.length > 1) {
  sessionStorage.setItem("token", location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
}
const headers = () => ({ Authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` });

class Refused extends Error {}

async function ask(path, body) {
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const kind = body === undefined ? {} : { "Content-Type": "application/json" };
  const response = await fetch(path, { ...post, headers: { ...headers(), ...kind } });
  if (response.status === 401) throw new Refused();
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// ---- small helpers: an element with text and children, and a problem that is said ---------------------------------
function make(tag, { text, svg, on = {}, ...attributes } = {}, ...children) {
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const [name, action] of Object.entries(on)) element.addEventListener(name, action);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

function say(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

async function attempt(action, button) {
  if (button) button.disabled = true;
  try {
    await action();
    say("");
  } catch (error) {
    if (error instanceof Refused) login();
    else say(error.message);
  } finally {
    if (button) button.disabled = false;
  }
}

function press(text, action, attributes = {}) {
  const button = make("button", { type: "button", text, ...attributes });
  button.addEventListener("click", () => attempt(action, button));
  return button;
}

const percent = (p) => (p === null || p === undefined ? "" : `${(100 * p).toFixed(0)} %`);
const clock = (at) => new Date(1000 * at).toLocaleTimeString();

// ---- decisions ---------------------------------------------------------------------------------------------------
const rows = new Map(); // decision id -> { data, element }

function show(data, fresh = false) {
  const known = rows.get(data.id);
  const element = card(data);
  rows.set(data.id, { data, element });
  const begun = known?.element.querySelector(".correct"); // a correction that somebody is writing stays
  if (begun && data.feedback.length === known.data.feedback.length) element.append(begun);
  if (known) known.element.replaceWith(element);
  else if (fresh) $("decisions").prepend(element);
  else $("decisions").append(element);
  if (fresh && !known) element.classList.add("new");
  while (rows.size > KEPT) {
    const last = $("decisions").lastElementChild;
    rows.delete(last.dataset.id);
    last.remove();
  }
  $("empty").hidden = rows.size > 0;
}

function card(data) {
  const wrong = data.by !== "doubt" && data.feedback.some((kind) => kind === "correction" || kind === "override");
  const right = data.feedback.includes("acceptance");
  const who = data.by === "table" ? "from the table" : `${data.by}, ${data.adapter} ${percent(data.p_model)}`;
  const element = make("li", { class: `decision ${wrong ? "wrong" : right ? "right" : ""}`, "data-id": data.id },
    make("div", { class: "meta" },
      make("span", { text: clock(data.at) }),
      make("span", { text: data.scope }),
      make("span", { text: who, class: data.by === "table" ? "table" : "" }),
      make("span", { text: data.outcome, class: data.outcome, title: data.reason }),
      make("span", { text: data.feedback.join(", "), class: wrong ? "table" : "applied" })),
    make("div", { class: "situation", text: data.text }),
    make("div", { class: "action", text: data.question?.length > 0 ? "asks" : data.action }));
  const teach = (kind, action = "") => ask("/api/feedback", { decision_id: data.id, kind, action, source: "page" });
  const open = data.question?.length > 0 && data.feedback.length === 0; // a question waits for one of its choices
  if (open) element.append(make("div", { class: "buttons question" }, make("span", { text: "Which one?" }),
    ...data.question.map((choice) => press(choice, () => teach("correction", choice), { class: "primary" }))));
  element.append(make("div", { class: "buttons" },
    ...(data.question?.length > 0 ? [] : [press("Right", () => teach("acceptance"), { title: "This was right" })]),
    press("Correct", async () => element.querySelector(".correct") ?? element.append(chooser(data, teach))),
    press("Why?", () => explain(data.id), { class: "plain" })));
  return element;
}

// The catalogue's choices; text of one's own is possible too, for replies and free arguments.
function chooser(data, teach) {
  const list = `choices-${data.id}`;
  const input = make("input", { list, placeholder: "what would have been right", "aria-label": "The right action", required: "" });
  const form = make("form", { class: "correct row" },
    input,
    make("datalist", { id: list }, ...data.choices.filter((c) => c !== data.action).map((value) => make("option", { value }))),
    make("button", { type: "submit", text: "Teach" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => { await teach("correction", input.value.trim()); form.remove(); });
  });
  queueMicrotask(() => input.focus());
  return form;
}

async function explain(id) {
  const found = await ask(`/api/decisions/${encodeURIComponent(id)}`);
  const facts = [
    ["situation", found.text], ["action", found.action], ["decided by", found.note ? `${found.by}: ${found.note}` : found.by],
    ["adapter", found.adapter], ["table", found.table ? `correction ${found.table.feedback_id} (${found.table.source})` : "no hit"],
    ["outcome", found.reason ? `${found.outcome}: ${found.reason}` : found.outcome],
    ["chance of being right", percent(found.chance)], ["plausible", (found.plausible ?? []).join(", ") || "not known yet"],
    ["took", Object.entries(found.timings_ms).map(([name, ms]) => `${name} ${ms.toFixed(1)} ms`).join(", ")],
  ];
  const line = ([name, value]) => make("tr", {}, make("td", { class: "quiet", text: name }), make("td", { text: value }));
  const rows = (title, lines) => make("table", {}, make("caption", { text: title }), ...lines.map(line));
  const mattered = rows("what of the situation spoke for it", [["", "asking the model again …"]]);
  const taught = (found.remembered ?? []).map((c) => [`${c.named ? "● " : ""}taught by ${c.source}`, c.text]);
  $("why-body").replaceChildren(
    make("table", {}, ...facts.map(line)),
    make("table", {}, ...found.candidates.slice(0, 12).map((c) => make("tr", {}, make("td", { text: c.action }), make("td", { text: percent(c.p ?? c.p_model) })))),
    mattered,
    rows("what was taught before (●: its causes)", taught));
  $("why").showModal();
  mattered.replaceWith(rows("what of the situation spoke for it", await weighed(id)));
}

// Each piece of the situation was left out once: how much likelier it made the action. Slow, so it comes after the rest.
async function weighed(id) {
  const answer = await ask(`/api/decisions/${encodeURIComponent(id)}/mattered`).catch((error) => ({ note: error.message, pieces: [] }));
  const strength = (piece) => piece.both ?? piece.weights; // null: nothing is left that it could be compared with
  const factor = (nats) => (nats > 7 ? "over 1000" : Math.exp(nats).toFixed(nats > 2.3 ? 0 : 1));
  const told = (nats) => (Math.abs(nats) < 0.05 ? "no difference" : `${factor(Math.abs(nats))} times ${nats > 0 ? "likelier" : "less likely"}`);
  const times = (nats) => (nats === null ? "not comparable" : told(nats));
  const pieces = answer.pieces.sort((a, b) => strength(b) - strength(a)).map((piece) => [times(strength(piece)), piece.text]);
  return answer.note ? [...pieces, ["", answer.note]] : pieces;
}

// ---- the side: status, modes, held commands, curve ----------------------------------------------------------------
function showStatus(status) {
  $("agent").textContent = status.agent;
  const off = ["table", "memory"].filter((name) => status[name] === false).map((name) => `${name} off`);
  const stands = status.condition === "NORMAL" ? [] : [status.condition];
  const parts = [...stands, `adapter ${status.adapter}${status.provisional ? " (provisional)" : ""}`, ...off, ...status.degraded];
  $("serving").textContent = parts.join(" · ");
  $("count").textContent = `${status.counts.decisions ?? status.counts.decision ?? rows.size} so far`;
  $("kill").hidden = false;
  $("kill").classList.toggle("on", status.kill);
  $("kill").textContent = status.kill ? "Stopped: allow commands again" : "Stop all commands";
  $("kill").dataset.on = status.kill;
  showCycle(status.cycle, status.feedback_since);
  showPeople(status.satisfaction);
  showAlarms(status.alarms);
}

// What was lost, never came, was let go, or could be.
function showAlarms(alarms) {
  $("alarmed").hidden = alarms.length === 0;
  $("alarms").replaceChildren(...alarms.map(({ kind, text }) => make("li", {}, make("b", { text: `${kind}: ` }), text)));
}

// The last seven days, in words.
function showPeople(found) {
  const going = { rising: ", going up", falling: ", going down" };
  const told = [];
  if (!found?.decisions) told.push("No decision yet that people could judge.");
  else told.push(`${percent(found.left)} of ${found.decisions} decisions were left as they were.`);
  if (found?.judged) told.push(`${found.overridden} of ${found.judged} judged ones were corrected${going[found.override_trend.direction] ?? ""}.`);
  if (found?.ratings) told.push(`Rated ${found.rating.toFixed(2)} on average, from −1 to 1${going[found.rating_trend.direction] ?? ""}.`);
  if (found?.contacts) told.push(`${found.repeated} of ${found.contacts} times somebody came back with the same thing.`);
  $("people").replaceChildren(...told.map((text) => make("li", { text })));
}

function showCycle(cycle, since) {
  const running = cycle?.state === "running";
  $("progress").hidden = !running;
  $("learn").disabled = running;
  if (running) $("progress").value = cycle.progress;
  const waiting = since === undefined ? "" : ` ${since} new feedbacks.`;
  if (!cycle) $("cycle").textContent = `No cycle yet.${waiting}`;
  else if (running) $("cycle").textContent = `Learning from ${cycle.examples} examples, epoch ${cycle.epoch.toFixed(1)}.`;
  else $("cycle").textContent = `Last cycle: ${cycle.state}${cycle.reason ? ` (${cycle.reason})` : ""}.${waiting}`;
}

function showModes(modes) {
  if ($("modes").contains(document.activeElement)) return; // do not pull a list away that is open
  $("modes").replaceChildren(...Object.entries(modes).map(([actuator, mode]) => {
    const select = make("select", { "aria-label": `mode of ${actuator}` }, ...MODES.map((value) => make("option", { value, text: value })));
    select.value = mode;
    select.addEventListener("change", () => attempt(async () => {
      await ask("/api/modes", { actuator, mode: select.value });
      select.blur();
    }));
    return make("li", {}, make("span", { text: actuator }), select);
  }));
}

// Commands that wait for a yes, and those of which nobody knows whether they were carried out.
function showHeld(held, uncertain) {
  $("waiting").hidden = held.length + uncertain.length === 0;
  const question = (text, send) => make("li", {}, make("span", { text }),
    make("span", { class: "row" }, press("Yes", send(true), { class: "primary" }), press("No", send(false))));
  const told = (path, body) => async () => { await ask(path, body); await look(); };
  $("held").replaceChildren(
    ...held.map(({ command_id, action }) => question(action, (yes) => told("/api/approve", { command_id, yes }))),
    ...uncertain.map(({ command_id, action }) => question(`Was it done? ${action}`, (done) => told("/api/resolve", { command_id, done }))));
}

// What people said that is kept but not learnt, and why; one press answers for it.
function showDoubts(doubts) {
  $("doubted").hidden = doubts.length === 0;
  $("doubted-count").textContent = doubts.length > DOUBTS ? `${DOUBTS} of ${doubts.length}` : "";
  $("doubts").replaceChildren(...doubts.slice(0, DOUBTS).map((doubt) => make("li", {},
    make("span", {}, make("span", { class: "quiet", text: `${doubt.text} → ` }), make("b", { text: doubt.said }), make("p", { class: "quiet", text: doubt.reason })),
    press(`Believe ${doubt.source}`, async () => { await ask("/api/vouch", { names: [doubt.feedback_id] }); await look(); }, { title: "Learn this after all" }))));
}

function showCurve(points) {
  const last = Math.max(1, points.at(-1)?.[0] ?? 1);
  const x = (events) => 28 + 264 * (events / last);
  const y = (accuracy) => 110 - 100 * accuracy;
  const svg = (tag, attributes) => make(tag, { svg: true, ...attributes });
  const grid = [0, 0.5, 1].flatMap((at) => [
    svg("line", { class: "grid", x1: 28, x2: 292, y1: y(at), y2: y(at) }),
    svg("text", { x: 24, y: y(at) + 3, "text-anchor": "end", text: String(100 * at) })]);
  const path = points.map(([events, accuracy], i) => `${i ? "L" : "M"}${x(events).toFixed(1)} ${y(accuracy).toFixed(1)}`).join("");
  const end = points.at(-1);
  $("curve").replaceChildren(...grid, svg("text", { x: 292, y: 126, "text-anchor": "end", text: `${last} judged decisions` }));
  if (end) $("curve").append(svg("path", { class: "path", d: path }), svg("circle", { cx: x(end[0]), cy: y(end[1]), r: 3.5 }));
  $("curve-text").textContent = end ? `${percent(end[1])} of the last judged decisions were right.` : "Judge a few decisions and the curve begins.";
}

function showScopes() {
  const chosen = $("scope").value || "chat";
  const names = [...new Set(["chat", ...[...rows.values()].map(({ data }) => data.scope)])].sort();
  if (names.length === $("scope").options.length) return;
  $("scope").replaceChildren(...names.map((value) => make("option", { value, text: value })));
  $("scope").value = names.includes(chosen) ? chosen : names[0];
}

async function look() {
  const [status, modes, held, uncertain, curve, doubts] = await Promise.all(["status", "modes", "held", "uncertain", "curve", "doubts"].map((name) => ask(`/api/${name}`)));
  showStatus(status);
  showModes(modes);
  showHeld(held, uncertain);
  showDoubts(doubts);
  showCurve(curve);
  showScopes();
}

async function reload() {
  for (const data of await ask(`/api/decisions?limit=${KEPT}`)) show(data);
  await look();
}

// ---- the stream: read with fetch, for EventSource cannot send the token --------------------------------------------
const heard = {
  hello: reload,
  lost: reload,
  decision: (data) => { show(data, true); showScopes(); },
  outcome: (data) => update(data.decision_id, { outcome: data.status, reason: data.reason }),
  feedback: (data) => update(data.decision_id, { feedback: [...(rows.get(data.decision_id)?.data.feedback ?? []), data.kind] }),
  cycle: (data) => showCycle(data),
  release: look,
};

function update(id, change) {
  const known = rows.get(id);
  if (known) show({ ...known.data, ...change });
}

async function listen() {
  const response = await fetch("/events", { headers: headers() });
  if (response.status === 401) throw new Refused();
  if (!response.ok) throw new Error((await response.json()).error);
  $("dot").className = "dot live";
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    const blocks = (rest + chunk.value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) await hear(block);
  }
}

async function hear(block) {
  const field = (name) => block.split("\n").filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join("\n");
  const action = heard[field("event")];
  if (action) await attempt(() => action(JSON.parse(field("data"))));
}

function login() {
  $("login").hidden = false;
  document.querySelector("main").hidden = true;
  $("serving").textContent = "";
  $("token").focus();
}

async function live() {
  try {
    await listen();
  } catch (error) {
    if (error instanceof Refused) return login();
  }
  $("dot").className = "dot";
  $("serving").textContent = "no connection, trying again …";
  setTimeout(live, RETRY);
}

function start() {
  $("login").hidden = true;
  document.querySelector("main").hidden = false;
  live();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  start();
});
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("words").value.trim();
  if (text) attempt(async () => { await ask("/api/say", { text, scope: $("scope").value || "chat", who: "page" }); $("words").value = ""; }, event.submitter);
});
$("kill").addEventListener("click", () => attempt(async () => { await ask("/api/kill", { on: $("kill").dataset.on !== "true" }); await look(); }, $("kill")));
$("learn").addEventListener("click", () => attempt(async () => { await ask("/api/learn", {}); await look(); }));
$("rollback").addEventListener("click", () => attempt(async () => { await ask("/api/rollback", {}); await look(); }, $("rollback")));
setInterval(() => { if ($("dot").classList.contains("live") && !document.hidden) look().catch(() => {}); }, LOOK);

if (sessionStorage.getItem("token")) start();
else login();
