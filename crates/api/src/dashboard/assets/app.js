// The live page: takes a snapshot a second over Server-Sent Events and writes what changed.
'use strict';

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat('en-US');
const FEE_LABELS = ['<1', '1', '2', '5', '10', '20', '50', '100+'];
const HISTORY = 120;

let clockOffset = 0;
let latest = null;
let lastSeen = null;
let previous = null;
let topBlock = null;
const history = [];

// ---- words and numbers

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

function virtualBytes(count) {
  const units = ['vB', 'kvB', 'MvB', 'GvB'];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

function rate(count) { return `${bytes(count)}/s`; }

function duration(seconds) {
  seconds = Math.max(0, Math.round(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  const days = Math.floor(seconds / 86400);
  if (days < 730) return `${days} d ${Math.floor((seconds % 86400) / 3600)} h`;
  return `${Math.floor(days / 365)} years`;
}

function now() { return Date.now() / 1000 + clockOffset; }
function ago(time) { const age = now() - time; return age < 5 ? 'just now' : `${duration(age)} ago`; }
function briefly(time) {
  const age = Math.max(0, now() - time);
  for (const [unit, name] of [[31536000, 'y'], [86400, 'd'], [3600, 'h'], [60, 'min']]) {
    if (age >= unit) return `${Math.floor(age / unit)} ${name} ago`;
  }
  return 'just now';
}
function shortHash(hash) { return `${hash.slice(0, 8)}…${hash.slice(-8)}`; }
function percent(part, all) { return all > 0 ? Math.min(100, (part / all) * 100) : 0; }
// Never shows 100 % before it is reached.
function percentText(value) { return value >= 100 ? '100 %' : `${(Math.floor(value * 10) / 10).toFixed(1)} %`; }

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Keeps one child of `parent` per item, in the items' order, so that focus and scroll stay where they are.
function keyed(parent, items, key, create, update) {
  const old = new Map();
  for (const node of parent.children) old.set(node.dataset.key, node);
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let node = old.get(name);
    if (node) {
      old.delete(name);
    } else {
      node = create(item);
      node.dataset.key = name;
    }
    update(node, item);
    if (node === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(node, place);
    }
  }
  for (const node of old.values()) node.remove();
}

// ---- Bitcoin

function showChain(bitcoin) {
  const off = !bitcoin;
  $('chain-off').hidden = !off;
  for (const node of $('chain').children) {
    if (node.id !== 'chain-off' && !node.classList.contains('head')) node.hidden = off;
  }
  $('mempool').hidden = off;
  if (off) return;
  setText($('height'), whole.format(bitcoin.height));
  setText($('tip'), shortHash(bitcoin.tip));
  $('tip').title = bitcoin.tip;
  setText($('headers'), whole.format(bitcoin.headers));
  const behind = bitcoin.headers - bitcoin.height;
  const synced = behind <= 0 && !bitcoin.initial_download;
  const chip = $('sync-state');
  setText(chip, synced ? 'In step' : behind > 0 ? 'Syncing' : 'Waiting for peers');
  chip.className = `chip ${synced ? 'synced' : 'syncing'}`;
  const share = synced ? 100 : Math.min(99.9, bitcoin.progress * 100, percent(bitcoin.height, Math.max(1, bitcoin.headers)));
  $('sync-bar').firstElementChild.style.width = `${share}%`;
  $('sync-bar').setAttribute('aria-valuenow', share.toFixed(1));
  setText($('sync-text'), synced
    ? 'Every known block is validated.'
    : behind > 0
      ? `${whole.format(bitcoin.height)} of ${whole.format(bitcoin.headers)} blocks validated, ${percentText(share)}`
      : 'The tip is old: newer blocks come as soon as peers have them.');
  // A block that just came lights up; during a sync that would only flicker.
  const risen = topBlock === null ? 0 : bitcoin.height - topBlock;
  const fresh = risen > 0 && risen <= 4 ? topBlock : null;
  keyed($('blocks'), bitcoin.blocks, (block) => block.hash, () => {
    const item = make('li');
    item.append(make('b'), make('span'), make('span'));
    return item;
  }, (item, block) => {
    const [height, size, age] = item.children;
    setText(height, whole.format(block.height));
    const count = block.transactions;
    setText(size, count === null ? 'not here' : `${whole.format(count)} tx`);
    setText(age, briefly(block.time));
    item.title = block.hash;
    if (fresh !== null && block.height > fresh) item.classList.add('new');
  });
  topBlock = bitcoin.height;
  showMempool(bitcoin.mempool);
}

function showMempool(pool) {
  setText($('mempool-count'), whole.format(pool.count));
  setText($('mempool-bytes'), virtualBytes(pool.bytes));
  const most = Math.max(1, ...pool.fees);
  const chart = $('fees');
  while (chart.children.length < pool.fees.length) {
    const bar = make('div');
    const track = make('span');
    track.append(make('i'));
    bar.append(track, make('small', '', FEE_LABELS[chart.children.length]));
    chart.append(bar);
  }
  pool.fees.forEach((size, index) => {
    const bar = chart.children[index];
    bar.firstElementChild.firstElementChild.style.height = size > 0 ? `${Math.max(4, (size / most) * 100)}%` : '0';
    bar.title = `${FEE_LABELS[index]} sat/vB: ${virtualBytes(size)}`;
  });
  const least = (pool.min_feerate / 1000).toFixed(pool.min_feerate % 1000 ? 2 : 0);
  setText($('mempool-text'), `sat/vB. From ${least} up; ${bytes(pool.usage)} of ${bytes(pool.max)} memory in use.`);
}

function showAges() {
  if (!latest) return;
  const { bitcoin } = latest;
  if (bitcoin) setText($('tip-age'), ago(bitcoin.tip_time));
  setText($('uptime'), `up ${duration(latest.uptime + Math.max(0, now() - latest.time))}`);
}

// ---- traffic

function showTraffic(status) {
  const { bitcoin, torrent } = status;
  const totals = {
    time: status.time,
    in: bitcoin ? bitcoin.bytes_in : 0,
    out: bitcoin ? bitcoin.bytes_out : 0,
  };
  let rateIn = torrent ? torrent.download_rate : 0;
  let rateOut = torrent ? torrent.upload_rate : 0;
  if (previous && totals.time > previous.time) {
    const seconds = totals.time - previous.time;
    rateIn += Math.max(0, totals.in - previous.in) / seconds;
    rateOut += Math.max(0, totals.out - previous.out) / seconds;
  } else if (previous) {
    return;
  }
  previous = totals;
  history.push([rateIn, rateOut]);
  if (history.length > HISTORY) history.shift();
  setText($('rate-in'), rate(rateIn));
  setText($('rate-out'), rate(rateOut));
  const parts = [];
  if (bitcoin) parts.push(`Bitcoin ${bytes(bitcoin.bytes_in)} in, ${bytes(bitcoin.bytes_out)} out`);
  if (torrent) parts.push(`BitTorrent ${bytes(torrent.downloaded)} in, ${bytes(torrent.uploaded)} out`);
  setText($('traffic-text'), parts.join(' · '));
  drawSpark();
}

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext('2d');
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

function drawSpark() {
  const { pen, width, height } = prepare($('spark'));
  const most = Math.max(1024, ...history.flat());
  const x = (index) => width - ((history.length - 1 - index) / (HISTORY - 1)) * width;
  const y = (value) => height - 2 - (value / most) * (height - 6);
  pen.strokeStyle = color('--line');
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(0, height - 0.5);
  pen.lineTo(width, height - 0.5);
  pen.stroke();
  [['--accent', 0, true], ['--bitcoin', 1, false]].forEach(([name, side, fill]) => {
    pen.beginPath();
    history.forEach((point, index) => {
      if (index === 0) pen.moveTo(x(0), y(point[side])); else pen.lineTo(x(index), y(point[side]));
    });
    pen.strokeStyle = color(name);
    pen.lineWidth = 1.75;
    pen.lineJoin = 'round';
    pen.stroke();
    if (fill && history.length > 1) {
      pen.lineTo(width, height);
      pen.lineTo(x(0), height);
      pen.closePath();
      pen.globalAlpha = 0.12;
      pen.fillStyle = color(name);
      pen.fill();
      pen.globalAlpha = 1;
    }
  });
}

// ---- torrents

const STATES = {
  metadata: 'Fetching metadata', checking: 'Checking', downloading: 'Downloading', seeding: 'Seeding', paused: 'Paused',
  error: 'Error',
};

function createTorrent(torrent) {
  const item = make('li', 'torrent');
  const line = make('div', 'line');
  const buttons = make('div', 'buttons');
  const toggle = make('button', 'toggle');
  const remove = make('button', 'danger', 'Remove');
  toggle.type = 'button';
  remove.type = 'button';
  const hash = torrent.info_hash;
  toggle.addEventListener('click', () => act(hash, toggle.dataset.action, toggle));
  remove.addEventListener('click', () => askRemove(hash, item.querySelector('.name').textContent));
  buttons.append(toggle, remove);
  line.append(make('span', 'name'), make('span', 'chip'), buttons);
  const map = make('canvas');
  map.setAttribute('role', 'img');
  const numbers = make('div', 'numbers');
  for (const label of ['done', 'down', 'up', 'eta', 'peers', 'ratio']) numbers.append(make('span', label));
  const error = make('p', 'error');
  error.hidden = true;
  item.append(line, map, numbers, error);
  return item;
}

function updateTorrent(item, torrent) {
  const query = (selector) => item.querySelector(selector);
  setText(query('.name'), torrent.name || torrent.info_hash);
  const chip = query('.chip');
  setText(chip, STATES[torrent.state] || torrent.state);
  chip.className = `chip ${torrent.state}`;
  const toggle = query('.toggle');
  const stopped = torrent.state === 'paused' || torrent.state === 'error';
  toggle.dataset.action = stopped ? 'resume' : 'pause';
  setText(toggle, stopped ? 'Resume' : 'Pause');
  toggle.setAttribute('aria-label', `${stopped ? 'Resume' : 'Pause'} ${torrent.name}`);
  query('.danger').setAttribute('aria-label', `Remove ${torrent.name}`);
  const share = percent(torrent.done, torrent.total);
  const number = (name, value, label) => {
    const node = query(`.numbers .${name}`);
    node.hidden = value === null;
    if (value === null) return;
    if (!node.firstElementChild) node.append(make('b'), document.createTextNode(''));
    setText(node.firstElementChild, value);
    if (node.lastChild.data !== label) node.lastChild.data = label;
  };
  number('done', torrent.total ? percentText(share) : '0 %', torrent.total ? ` of ${bytes(torrent.total)}` : ' size not known yet');
  number('down', torrent.state === 'downloading' || torrent.download_rate ? rate(torrent.download_rate) : null, ' down');
  number('up', torrent.state === 'seeding' || torrent.upload_rate ? rate(torrent.upload_rate) : null, ' up');
  number('eta', torrent.eta === null || torrent.state !== 'downloading' ? null : duration(torrent.eta), ' to go');
  number('peers', whole.format(torrent.peers), torrent.peers === 1 ? ' peer' : ' peers');
  number('ratio', torrent.uploaded ? bytes(torrent.uploaded) : null, ' shared');
  const error = query('p.error');
  error.hidden = !torrent.error;
  setText(error, torrent.error || '');
  const map = query('canvas');
  map.setAttribute('aria-label', `${torrent.pieces_done} of ${torrent.piece_count} pieces`);
  drawMap(map, torrent.map);
}

function drawMap(canvas, map) {
  const { pen, width, height } = prepare(canvas);
  pen.fillStyle = color('--torrent');
  const cell = width / Math.max(1, map.length);
  const gap = cell > 5 ? 1 : 0;
  for (let index = 0; index < map.length; index += 1) {
    const part = map.charCodeAt(index) - 48;
    if (part <= 0) continue;
    pen.globalAlpha = part >= 9 ? 1 : 0.2 + (part / 9) * 0.5;
    // Cells without a gap overlap a little, or hairlines show between them.
    pen.fillRect(index * cell, 0, cell - gap + (gap ? 0 : 0.5), height);
  }
  pen.globalAlpha = 1;
}

function showTorrents(torrent) {
  $('torrents').hidden = !torrent;
  if (!torrent) return;
  setText($('torrent-count'), whole.format(torrent.count));
  $('no-torrents').hidden = torrent.count > 0;
  setText($('torrent-rates'), torrent.count > 0 ? `${rate(torrent.download_rate)} down · ${rate(torrent.upload_rate)} up` : '');
  keyed($('torrent-list'), torrent.list, (entry) => entry.info_hash, createTorrent, () => {});
  [...$('torrent-list').children].forEach((item, index) => updateTorrent(item, torrent.list[index]));
}

let noticeTimer = 0;

function notice(text, bad) {
  const node = $('notice');
  node.hidden = false;
  node.classList.toggle('bad', Boolean(bad));
  setText(node, text);
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { node.hidden = true; }, bad ? 12000 : 5000);
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { method: 'POST', credentials: 'same-origin', ...options });
  } catch {
    throw new Error('the node did not answer');
  }
  if (response.ok) return;
  let text = `the node answered ${response.status}`;
  try { text = (await response.json()).error || text; } catch { /* no JSON: the status says enough */ }
  throw new Error(text);
}

async function act(hash, action, button) {
  button.disabled = true;
  try {
    await send(`/api/torrents/${hash}/${action}`);
  } catch (error) {
    notice(`That did not work: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}

function askRemove(hash, name) {
  const dialog = $('remove');
  setText($('remove-name'), name);
  $('remove-files').checked = false;
  dialog.returnValue = 'cancel';
  dialog.onclose = async () => {
    if (dialog.returnValue !== 'remove') return;
    try {
      await send(`/api/torrents/${hash}/remove?delete_files=${$('remove-files').checked}`);
      notice('Removed.');
    } catch (error) {
      notice(`Could not remove it: ${error.message}`, true);
    }
  };
  dialog.showModal();
}

async function add(body, type) {
  try {
    await send('/api/torrents', { body, headers: { 'content-type': type } });
    $('add-text').value = '';
    notice('Added.');
  } catch (error) {
    notice(`Could not add it: ${error.message}`, true);
  }
}

$('add').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('add-text').value.trim();
  if (text) add(text, 'text/plain'); else $('add-text').focus();
});

$('add-file').addEventListener('change', async (event) => {
  const [file] = event.target.files;
  if (file) await add(await file.arrayBuffer(), 'application/x-bittorrent');
  event.target.value = '';
});

// ---- peers

const COLUMNS = [
  ['network', 'Network'], ['addr', 'Address'], ['direction', 'Direction'], ['client', 'Client'],
  ['num in', 'Received'], ['num out', 'Sent'], ['num ping', 'Ping'], ['num since', 'Connected'],
];

function createPeer(peer) {
  const row = make('tr');
  for (const [className, label] of COLUMNS) {
    const cell = make('td', className);
    cell.dataset.label = label;
    row.append(cell);
  }
  row.children[0].append(make('i', `dot ${peer.network}`), document.createTextNode(peer.network === 'bitcoin' ? 'Bitcoin' : 'BitTorrent'));
  return row;
}

function updatePeer(row, peer) {
  const [, addr, direction, client, received, sent, ping, since] = row.children;
  setText(addr, peer.addr);
  setText(direction, peer.direction === 'in' ? 'inbound' : 'outbound');
  setText(client, peer.client || 'unknown');
  client.title = peer.client;
  setText(received, bytes(peer.bytes_in));
  setText(sent, bytes(peer.bytes_out));
  setText(ping, peer.ping === null ? '–' : peer.ping < 10 ? `${peer.ping.toFixed(1)} ms` : `${Math.round(peer.ping)} ms`);
  setText(since, peer.since === null ? '–' : duration(now() - peer.since));
}

function showPeers(status) {
  setText($('peer-count'), whole.format(status.peer_count));
  $('no-peers').hidden = status.peer_count > 0;
  $('peers').hidden = status.peer_count === 0;
  const parts = [];
  if (status.bitcoin) parts.push(`${whole.format(status.bitcoin.peer_count)} Bitcoin`);
  if (status.torrent) parts.push(`${whole.format(status.torrent.peer_count)} BitTorrent`);
  const more = status.peer_count - status.peers.length;
  if (more > 0) parts.push(`${whole.format(more)} not listed`);
  setText($('peer-text'), parts.join(' · '));
  keyed($('peers').tBodies[0], status.peers, (peer) => `${peer.network}-${peer.id}-${peer.addr}`, createPeer, updatePeer);
}

// ---- the connection

function show(status) {
  latest = status;
  lastSeen = new Date();
  clockOffset = status.time - Date.now() / 1000;
  setText($('network'), status.network);
  setText($('version'), `version ${status.version}`);
  document.title = status.bitcoin ? `${whole.format(status.bitcoin.height)} · Dunlin` : 'Dunlin';
  showChain(status.bitcoin);
  showTraffic(status);
  showTorrents(status.torrent);
  showPeers(status);
  showAges();
}

function connected(on) {
  const node = $('connection');
  setText(node, on ? 'Live' : 'Offline');
  node.className = `live ${on ? 'on' : 'off'}`;
  document.body.classList.toggle('lost', !on);
  document.body.classList.remove('loading');
  $('lost').hidden = on;
  if (!on) setText($('lost-since'), lastSeen ? lastSeen.toLocaleTimeString() : 'before');
}

let retry = 1000;

function watch() {
  const source = new EventSource('/api/events');
  let silence = 0;
  const again = () => {
    source.close();
    clearTimeout(silence);
    connected(false);
    setTimeout(watch, retry);
    retry = Math.min(15000, retry * 1.7);
  };
  const heard = () => {
    clearTimeout(silence);
    // A snapshot comes every second: ten seconds of silence are a dead link, whatever the socket says.
    silence = setTimeout(again, 10000);
  };
  source.onmessage = (event) => {
    retry = 1000;
    heard();
    connected(true);
    show(JSON.parse(event.data));
  };
  source.onerror = again;
  heard();
}

setInterval(showAges, 1000);
window.addEventListener('resize', () => {
  if (!latest) return;
  drawSpark();
  showTorrents(latest.torrent);
});
window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  if (!latest) return;
  drawSpark();
  showTorrents(latest.torrent);
});
watch();
