// ONNX Runtime, one thread: GFLOP/s of its fused multi-head attention without a
// mask, counting 4 heads dim tokens^2 flop.
// npm install --ignore-scripts onnxruntime-node; node attention.mjs HEADS DIM TOKENS
import {createRequire} from "node:module"
import {join} from "node:path"

const ort = createRequire(join(process.cwd(), "x.js"))("onnxruntime-node")
const [heads, dim, tokens] = process.argv.slice(2).map(Number)
const width = heads * dim

// A model of one node, in protocol buffers: key, then a number or bytes with their length.
function varint(n) {
	const bytes = []
	for (; n > 127; n = Math.floor(n / 128)) bytes.push((n % 128) | 128)
	return Buffer.from([...bytes, n])
}
const number = (field, n) => Buffer.concat([varint(field * 8), varint(n)])
const bytes = (field, ...parts) => {
	const body = Buffer.concat(parts.map((p) => Buffer.from(p)))
	return Buffer.concat([varint(field * 8 + 2), varint(body.length), body])
}
const value = (field, name) => {
	const shape = [1, tokens, width].map((n) => bytes(1, number(1, n)))
	return bytes(field, bytes(1, name), bytes(2, bytes(1, number(1, 1), bytes(2, ...shape))))
}
const attribute = bytes(5, bytes(1, "num_heads"), number(3, heads), number(20, 2))
const node = bytes(1, bytes(1, "q"), bytes(1, "k"), bytes(1, "v"), bytes(2, "out"), bytes(3, "attention"), bytes(4, "MultiHeadAttention"), attribute, bytes(7, "com.microsoft"))
const graph = bytes(7, node, bytes(2, "graph"), value(11, "q"), value(11, "k"), value(11, "v"), value(12, "out"))
const opset = (domain, version) => bytes(8, bytes(1, domain), number(2, version))
const model = Buffer.concat([number(1, 8), graph, opset("", 17), opset("com.microsoft", 1)])

const random = () => new ort.Tensor("float32", Float32Array.from({length: tokens * width}, () => Math.random() - 0.5), [1, tokens, width])
const feeds = {q: random(), k: random(), v: random()}
const session = await ort.InferenceSession.create(model, {intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: "sequential", logSeverityLevel: 3})
await session.run(feeds)
let runs = 0
const begin = performance.now()
for (; performance.now() - begin < 2000; runs++) await session.run(feeds)
console.log(((4 * heads * dim * tokens * tokens * runs) / (performance.now() - begin) / 1e6).toFixed(2))
