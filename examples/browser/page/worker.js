// The worker runs the Go program, so that the page stays alive. The page ends it to stop it.
"use strict";
importScripts("wasm_exec.js");

const fail = (error) => postMessage({ kind: "error", text: String((error && error.message) || error) });
const go = new Go();
const ready = fetch("subquad.wasm")
  .then((response) => {
    if (!response.ok) throw new Error("subquad.wasm: " + response.status + " " + response.statusText);
    return WebAssembly.instantiateStreaming(response, go.importObject);
  })
  .then((result) => {
    go.run(result.instance).then(() => postMessage({ kind: "ended" }), fail);
    postMessage({ kind: "ready" });
  });

onmessage = (event) => {
  const { file, window, mask } = event.data;
  ready.then(() => readGenome(file, window, mask)).catch(fail);
};
