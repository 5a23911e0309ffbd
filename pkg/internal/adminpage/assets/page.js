// Keeps the page as the process has it. All text gets there by textContent: what a node
// is called, or a record holds, is never markup.

const $ = (id) => document.getElementById(id);

const eventsMost = 50;
const recordsMost = 40;

function set(node, text) {
  if (node.textContent !== text) node.textContent = text; // what stays is not read out again
}

function dress(node, classes) {
  if (node.className !== classes) node.className = classes;
}

function element(tag, classes, text) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  if (text !== undefined) node.textContent = text;
  return node;
}

// list gives parent one child an item, in their order, and keeps those it has.
function list(parent, items, keyOf, make, fill) {
  const have = new Map();
  for (const child of parent.children) have.set(child.dataset.key, child);
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = have.get(key);
    have.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    fill(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const child of have.values()) child.remove();
}

function paragraphs(tag, ...classes) {
  const node = element(tag);
  for (const c of classes) node.append(element('p', c));
  return node;
}

function place(node, p) {
  const [name, role, state] = node.children;
  set(name, p.name);
  set(role, p.role);
  set(state, p.state);
}

function table(t) {
  const found = $(t.id);
  if (!found) return;
  list(found.tBodies[0], t.rows, (r) => r.key, (r) => {
    const row = element('tr');
    r.cells.forEach((_, i) => {
      const cell = element(i === 0 ? 'th' : 'td');
      if (i === 0) cell.scope = 'row';
      row.append(cell);
    });
    return row;
  }, (row, r) => r.cells.forEach((c, i) => {
    const cell = row.children[i];
    set(cell, c.text);
    dress(cell, c.tone + (t.columns[i].numeric && i > 0 ? ' number' : ''));
  }));
  $(t.id + '-empty').hidden = t.rows.length > 0;
}

function view(v) {
  list($('answers'), v.answers, (a) => a.question, () => {
    const node = element('div');
    node.append(element('dt'), element('dd', 'text'), element('dd', 'why'));
    return node;
  }, (node, a) => {
    const [question, text, why] = node.children;
    set(question, a.question);
    set(text, a.text);
    set(why, a.why);
    dress(node, 'answer ' + a.tone);
  });
  place($('self'), v.self);
  dress($('self'), 'place self ' + v.self.tone);
  list($('places'), v.places, (p) => p.key,
    () => paragraphs('li', 'place-name', 'place-role', 'place-state'),
    (node, p) => {
      place(node, p);
      dress(node, 'place ' + p.tone + (p.leader ? ' leader' : ''));
    });
  v.tables.forEach(table);
  list($('facts'), v.facts, (f) => f.name, (f) => {
    const node = element('div');
    node.append(element('dt', '', f.name), element('dd'));
    return node;
  }, (node, f) => set(node.children[1], f.value));
  seen = v.at;
  say('Live, ' + v.at);
}

// --- events ---

const words = { info: 'Info', warning: 'Warning', error: 'Error' };

function clock(time) {
  const t = new Date(time);
  return Number.isNaN(t.getTime()) ? '' : t.toISOString().slice(11, 19);
}

function first(parent, node, most) {
  parent.prepend(node);
  while (parent.children.length > most) parent.lastElementChild.remove();
}

function happened(e) {
  const node = element('li', e.severity);
  const time = element('time', '', clock(e.time));
  time.dateTime = e.time;
  const what = element('span', 'what');
  if (e.node_id) what.append(element('b', '', e.node_id), ' ');
  what.append(e.text + (e.times > 1 ? ` (${e.times} times)` : ''));
  node.append(time, ' ', element('span', 'severity', words[e.severity] ?? e.severity), ' ', what);
  node.dataset.key = e.id;
  first($('events'), node, eventsMost);
  $('events-empty').hidden = true;
  last = e.id;
}

// --- records ---

function aside(text) {
  const node = element('li');
  node.append(element('span', 'aside', text));
  return node;
}

function contents(c) {
  const marks = [];
  if (c.base64) marks.push('base64');
  if (c.cut) marks.push(`the first KiB of ${c.bytes} bytes`);
  return [c.text, marks.length ? ` (${marks.join(', ')})` : ''];
}

function record(r) {
  const node = element('li');
  const time = element('time', '', clock(r.time));
  time.dateTime = r.time;
  const value = element('span', 'value');
  const parts = [];
  if (r.key) parts.push(...contents(r.key), ': ');
  const [text, marks] = contents(r.value);
  value.append(...parts, text, element('span', 'mark', marks));
  node.append(time, ' ', element('span', 'offset', String(r.offset)), ' ', value);
  first($('tail'), node, recordsMost);
}

function skipped(count) {
  const top = $('tail').firstElementChild;
  if (top?.dataset.skipped) {
    count += Number(top.dataset.skipped);
    top.remove();
  }
  const node = aside(`${count} more records came than are shown`);
  node.dataset.skipped = count;
  first($('tail'), node, recordsMost);
}

// --- the streams ---

let last = Number(document.body.dataset.last);
let seen = '';
let sources = [];
let again = 0;
let paused = false;

function say(text) {
  if ($('link').textContent === text) return;
  // Only a change of state is worth being read out, not the seconds that pass.
  $('link').setAttribute('aria-live', text.startsWith('Live') && $('link').textContent.startsWith('Live') ? 'off' : 'polite');
  $('link').textContent = text;
}

function open(url, handlers, lost) {
  const source = new EventSource(url);
  for (const [kind, handle] of Object.entries(handlers)) {
    source.addEventListener(kind, (m) => handle(JSON.parse(m.data)));
  }
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) later(); // refused: it does not come back by itself
  };
  sources.push(source);
}

function lost() {
  if (!paused) say('Not connected' + (seen ? '; this is from ' + seen : '') + '. Trying again.');
}

function start() {
  stop();
  open(`api/events?page=1&after=${last}`, {
    page: view,
    event: happened,
    gone: (g) => first($('events'), aside(`${g.count} events are forgotten already`), eventsMost),
    end: lost,
  }, lost);
  if ($('tail')) {
    $('tail').replaceChildren();
    open('api/tail', {
      record,
      skipped: (s) => skipped(s.count),
      trouble: (t) => first($('tail'), aside('A record cannot be read: ' + t.text), recordsMost),
    }, () => {});
  }
}

function stop() {
  clearTimeout(again);
  for (const s of sources) s.close();
  sources = [];
}

function later() {
  clearTimeout(again);
  if (!paused) again = setTimeout(start, 5000);
}

$('pause').hidden = false;
$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  if (paused) {
    stop();
    say('Paused' + (seen ? ' at ' + seen : ''));
  } else {
    start();
  }
});
// One who only went back and forth gets the page as it was, without its streams.
addEventListener('pageshow', (e) => { if (e.persisted && !paused) start(); });
addEventListener('pagehide', stop);
start();
