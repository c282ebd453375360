// Runs a pipeline and shows what happens. Everything that comes from the server is set as text, never as markup.
const $ = (id) => document.getElementById(id);
const element = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });
const OWN = "";
let offers = new Map();
let location_;

const ask = (path, more = {}) => {
  const token = $("token").value.trim();
  const headers = { ...more.headers, ...(token === "" ? {} : { authorization: `Bearer ${token}` }) };
  return fetch(path, { ...more, headers });
};

const say = (text, bad = false) => {
  $("status").textContent = text;
  $("status").className = bad ? "bad" : "";
};

/** A problem's words: what is wrong and where. */
const words = ({ title, detail, mistakes = [] }) =>
  [
    detail ?? title,
    ...mistakes.map((m) =>
      `${m.at ?? `line ${m.line}, column ${m.column}`}: ${m.message}${
        m.expected ? `\n    expected: ${m.expected}` : ""
      }${m.hint ? `\n    ${m.hint}` : ""}`
    ),
  ].join("\n");

const show = (value) => typeof value === "string" ? value : JSON.stringify(value);
/** A field's text as the parameter's own kind of value. */
const read = (text, original) => {
  if (typeof original === "string" || (original === null && !/^(null|-?\d|true|false|[[{"])/.test(text))) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

const choose = () => {
  const name = $("pipeline").value;
  $("own").hidden = name !== OWN;
  $("params").replaceChildren(element("legend", "Parameters"));
  $("params").hidden = name === OWN;
  for (const [param, value] of Object.entries(offers.get(name)?.params ?? {})) {
    const label = element("label", param);
    label.append(Object.assign(element("input"), { name: param, value: show(value) }));
    $("params").append(label);
  }
};

const loadOffers = async () => {
  const response = await ask("/pipelines");
  if (!response.ok) return say(words(await response.json()), true);
  offers = new Map((await response.json()).map((offer) => [offer.name, offer]));
  $("pipeline").replaceChildren(
    ...[...offers.values()].map(({ name, title }) =>
      Object.assign(element("option", `${name}: ${title}`), { value: name })
    ),
    Object.assign(element("option", "a pipeline of my own"), { value: OWN }),
  );
  say("");
  choose();
};

const step = (name) => {
  const known = [...$("steps").children].find((item) => item.dataset.name === name);
  if (known !== undefined) return known;
  const item = element("li");
  item.dataset.name = name;
  item.append(
    element("span", name),
    " ",
    Object.assign(element("progress"), { max: 100, value: 0 }),
    " ",
    element("small"),
  );
  $("steps").append(item);
  return item;
};

const seconds = (s) => s < 60 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;

const finish = async (event) => {
  $("result").hidden = false;
  const { verdict, artefacts } = event;
  $("verdict").textContent = verdict === null ? "Done" : `${verdict.passed ? "Passed" : "Failed"}: ${verdict.sentence}`;
  $("figures").replaceChildren(...(verdict?.figures ?? []).map((figure) => {
    const row = element("tr");
    const mark = figure.passed === undefined ? "" : figure.passed ? "✓" : "✗";
    for (const text of [mark, figure.name, String(figure.value), figure.threshold ?? ""]) {
      row.append(element("td", text));
    }
    return row;
  }));
  $("files").replaceChildren(...artefacts.map(({ name, bytes, href }) => {
    const link = Object.assign(element("button", `${name} (${bytes} bytes)`), { type: "button" });
    link.addEventListener("click", async () => {
      const url = URL.createObjectURL(await (await ask(href)).blob());
      Object.assign(element("a"), { href: url, download: name.split("/").at(-1) }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    });
    const item = element("li");
    item.append(link);
    return item;
  }));
  const report = artefacts.find(({ name }) => name === "report.html");
  $("report").hidden = report === undefined;
  if (report !== undefined) $("report").srcdoc = await (await ask(report.href)).text();
};

const on = {
  initiate: (e) => step(e.name).lastChild.textContent = e.reason,
  progress: (e) => {
    const item = step(e.name);
    item.querySelector("progress").value = e.progress;
    item.lastChild.textContent = `${seconds(e.seconds)}${e.left === undefined ? "" : `, ${seconds(e.left)} left`} ${
      e.note ?? ""
    }`;
  },
  done: (e) => {
    const item = step(e.name);
    item.querySelector("progress").value = 100;
    item.lastChild.textContent = e.cached ? "from an earlier run" : seconds(e.seconds);
  },
  note: (e) => say(e.message),
  ready: () => say("writing the results"),
  result: (e) => {
    say(`done in ${seconds(e.seconds)}`);
    return finish(e);
  },
  error: (e) => say(`${e.tag}: ${words({ detail: e.message, mistakes: e.problems })}`, true),
};

const run = async () => {
  const name = $("pipeline").value;
  const { params = {} } = offers.get(name) ?? {};
  const changed = [...$("params").querySelectorAll("input")].filter(({ name, value }) => value !== show(params[name]));
  const request = name === OWN ? { inline: $("inline").value } : {
    pipeline: name,
    params: Object.fromEntries(changed.map((input) => [input.name, read(input.value, params[input.name])])),
  };
  $("steps").replaceChildren();
  $("result").hidden = true;
  say("asking");
  const response = await ask("/run", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/x-ndjson" },
    body: JSON.stringify(request),
  });
  if (!response.ok) return say(words(await response.json()), true);
  location_ = response.headers.get("location");
  $("cancel").disabled = false;
  say("running");
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      await on[event.status]?.(event);
    }
  }
};

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("run").disabled = true;
  try {
    await run();
  } catch (error) {
    say(`the connection broke: ${error.message}`, true);
  }
  $("run").disabled = false;
  $("cancel").disabled = true;
});
$("cancel").addEventListener("click", () => ask(location_, { method: "DELETE" }));
$("pipeline").addEventListener("change", choose);
$("token").addEventListener("change", loadOffers);
loadOffers();
