// The gateway: what a user of Redis Streams writes before it, so that clients can append over WebSocket.
//
//     node gateway.mjs MODULES PORT REDIS_PORT
//
//     {"ref":"1","session":"s","content":{…}}   ─▶ XADD s * c {…} ─▶   {"ref":"1","id":"1700000000000-0"}
//     {"replay":"s"}                            ─▶ XRANGE s - +   ─▶   each content, then {}
//
// It acknowledges when Redis has, and the commands of one turn of the loop go to Redis in one write. It has no
// users, no permissions, no limits, no live messages, and no answer to a message that is sent again.
import { createRequire } from "node:module"

const [modules, port, redisPort] = process.argv.slice(2)
const require = createRequire(`${modules}/`)
const { WebSocketServer } = require("ws")
const { Redis } = require("ioredis")

const redis = new Redis({ host: "127.0.0.1", port: Number(redisPort), enableAutoPipelining: true })
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate: false })

async function append(socket, { ref, session, content }) {
  const id = await redis.xadd(session, "*", "c", JSON.stringify(content))
  socket.send(JSON.stringify({ ref, id }))
}

async function replay(socket, session) {
  for (const [, fields] of await redis.xrange(session, "-", "+")) {
    socket.send(fields[1])
  }
  socket.send("{}")
}

server.on("connection", (socket) => {
  socket.on("message", (data) => {
    const request = JSON.parse(data)
    const done = request.replay ? replay(socket, request.replay) : append(socket, request)
    done.catch((error) => socket.close(1011, String(error).slice(0, 100)))
  })
})
