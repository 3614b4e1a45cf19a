// The page: what is read, how far it is, and what was found.
"use strict";

const $ = (id) => document.getElementById(id);
const track = new Track($("track"));
let worker, busy = false, row = null, since = 0;

const status = (text) => { $("status").textContent = text; };

function fail(text) {
  $("error").textContent = text;
  status("Nothing is read.");
  setBusy(false);
}

function setBusy(on) {
  busy = on;
  $("stop").disabled = !on;
  for (const id of ["read", "lambda", "file", "window", "mask"]) $(id).disabled = on;
}

// start makes a worker, which loads the model while the page waits for a genome.
function start() {
  if (worker) worker.terminate();
  worker = new Worker("worker.js");
  worker.onmessage = (event) => hear(event.data);
  worker.onerror = (event) => fail(event.message || "the worker cannot be loaded");
}

const hear = (message) => ({
  ready() { if (!busy) status("Ready."); },
  error() { fail(message.text); },
  ended() { // as it does where memory is short
    start();
    fail("The program has ended and was started again: the file takes more memory than the browser gives.");
  },
  record() {
    track.begin(message.name, message.bases);
    row = $("records").insertRow();
    for (const text of [message.name || "(no name)", message.bases.toLocaleString("en"), "0", "", ""]) row.insertCell().textContent = text;
    since = performance.now();
  },
  piece() {
    const { letters, bits } = message;
    track.add(letters, new Float32Array(bits.buffer));
    const record = track.records[track.records.length - 1], read = track.length - record.from;
    const mean = track.mean(record.from, track.length);
    row.cells[2].textContent = read.toLocaleString("en");
    row.cells[3].textContent = mean === mean ? mean.toFixed(5) : "";
    row.cells[4].textContent = Math.round(1000 * read / (performance.now() - since)).toLocaleString("en");
    $("progress").value = read / record.bases;
    status(`Reading ${record.name || "a record"}: ${Math.round(100 * read / record.bases)} %`);
  },
  done() {
    $("progress").value = 1;
    const mean = track.mean(0, track.length);
    status(`Done: ${track.length.toLocaleString("en")} bases` + (mean === mean ? `, ${mean.toFixed(5)} bits per base.` : "."));
    setBusy(false);
  },
})[message.kind]();

// read reads a file, or phage lambda where it is null.
async function read(file) {
  if (busy) return;
  setBusy(true);
  $("error").textContent = "";
  $("records").replaceChildren();
  $("progress").value = 0;
  track.clear();
  status("Loading the model …");
  try {
    const bytes = file && new Uint8Array(await file.arrayBuffer());
    worker.postMessage({ file: bytes, window: Number($("window").value), mask: $("mask").checked });
  } catch (error) {
    fail(String(error.message || error));
  }
}

$("lambda").onclick = () => read(null);
$("read").onclick = () => {
  const text = $("text").value.trim();
  if (!text) return fail("The text is empty: paste a FASTA file.");
  read(new Blob([text.startsWith(">") || text.startsWith(";") ? text : ">pasted\n" + text]));
};
$("file").onchange = () => { if ($("file").files.length) read($("file").files[0]); $("file").value = ""; };
$("stop").onclick = () => {
  start();
  status("Stopped.");
  setBusy(false);
};

const drop = $("drop");
document.ondragover = document.ondrop = (event) => event.preventDefault(); // a file beside the box does not replace the page
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
};

const canvas = $("track");
let dragged = null;
canvas.onpointerdown = (event) => { dragged = event.clientX; canvas.setPointerCapture(event.pointerId); };
canvas.onpointerup = () => { dragged = null; };
canvas.onpointermove = (event) => {
  if (dragged !== null) {
    track.move((dragged - event.clientX) / (canvas.clientWidth - 42));
    dragged = event.clientX;
  }
  const base = track.at(event.offsetX);
  $("hover").textContent = base < 0 ? "" : track.describe(base);
};
canvas.ondblclick = () => track.showAll();
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  track.zoom(event.deltaY > 0 ? 1.3 : 1 / 1.3, Math.max(0, (event.offsetX - 42) / (canvas.clientWidth - 42)));
}, { passive: false });
window.onresize = () => track.draw();

start();
