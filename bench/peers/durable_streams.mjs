// The Durable Streams reference server, with its data in files:  node durable_streams.mjs MODULES PORT DIRECTORY
import { createRequire } from "node:module"

const [modules, port, dataDir] = process.argv.slice(2)
const { DurableStreamTestServer } = createRequire(`${modules}/`)("@durable-streams/server")

await new DurableStreamTestServer({ host: "127.0.0.1", port: Number(port), dataDir }).start()
