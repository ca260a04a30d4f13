// Real parts: mongod, redis-server, the sidecar's binary, and clients with a cookie jar over HTTP/1.1 and HTTP/2.
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.join(here, '..', '..')
const patience = 1000 * Number(process.env.CLOAKROOM_TEST_PATIENCE ?? 15)
export const secret = 'the-secret-of-the-tests-0123456789abcdef'

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cloakroom-'))
const children = new Set()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  fs.rmSync(folder, { recursive: true, force: true })
})

export const eventually = async (what, probe) => {
  for (const end = Date.now() + patience; ; ) {
    const answer = await probe()
    if (answer) return answer
    if (Date.now() > end) throw new Error(`waited ${patience} ms in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

// --- ports: a block below the ephemeral range, claimed by holding its first one (as in tests/it/support/ports.rs)

const listen = (port) =>
  new Promise((resolve) => {
    const server = net.createServer().once('error', () => resolve(null))
    server.listen(port, '127.0.0.1', () => resolve(server))
  })

const claimBlock = async () => {
  for (let turn = 0; turn < 100; turn++) {
    const start = 12000 + ((process.pid + turn) % 100) * 200
    const guard = await listen(start)
    if (guard) return { start, next: 0, guard: guard.unref() }
  }
  throw new Error('no free block of ports')
}

let claimed
const freePort = async () => {
  const block = await (claimed ??= claimBlock())
  for (let turn = 0; turn < 199; turn++) {
    block.next = (block.next % 199) + 1
    const port = block.start + block.next
    const probe = await listen(port)
    if (!probe) continue
    await new Promise((resolve) => probe.close(resolve))
    return port
  }
  throw new Error('no free port')
}

const answers = (port) =>
  new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false)).once('connect', () => resolve(socket.destroy() && true))
  })

// --- processes

const run = (command, args, options = {}) => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  child.text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => (child.text += bytes))
  child.on('error', (error) => (child.text += error))
  child.on('exit', () => children.delete(child))
  children.add(child)
  child.stop = (signal = 'SIGTERM') =>
    new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve(child.exitCode)
      child.once('exit', (code) => resolve(code))
      child.kill(signal)
    })
  return child
}

const alive = (child, what) => {
  if (child.exitCode !== null || child.pid === undefined) throw new Error(`${what} ended (${child.exitCode}):\n${child.text}`)
}

export const startMongod = async () => {
  const cached = path.join(root, 'tests', '.cache', 'mongod')
  const binary = process.env.CLOAKROOM_TEST_MONGOD ?? (fs.existsSync(cached) ? cached : 'mongod')
  const data = path.join(folder, 'mongod')
  fs.mkdirSync(data)
  const port = await freePort()
  const child = run(binary, [
    ...['--dbpath', data, '--port', String(port), '--bind_ip', '127.0.0.1', '--nounixsocket', '--wiredTigerCacheSizeGB', '0.25'],
    ...['--setParameter', 'ttlMonitorEnabled=false'],
  ])
  await eventually('mongod', () => (alive(child, 'mongod'), answers(port)))
  return { url: `mongodb://127.0.0.1:${port}/app`, stop: child.stop }
}

export const startRedis = async () => {
  const port = await freePort()
  const data = path.join(folder, 'redis')
  fs.mkdirSync(data)
  const binary = process.env.CLOAKROOM_TEST_REDIS ?? 'redis-server'
  const child = run(binary, ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', data])
  await eventually('redis-server', () => (alive(child, 'redis-server'), answers(port)))
  return { url: `redis://127.0.0.1:${port}`, stop: child.stop }
}

// A folder of its own, gone at exit.
export const newFolder = (name) => fs.mkdtempSync(path.join(folder, `${name}-`))

const sidecarBinary = () => {
  if (process.env.CLOAKROOM_BIN) return path.resolve(process.env.CLOAKROOM_BIN)
  const target = path.join(root, 'target')
  const built = (fs.existsSync(target) ? fs.readdirSync(target) : [])
    .map((profile) => path.join(target, profile, 'cloakroom'))
    .filter((file) => fs.existsSync(file))
  if (!built.length) throw new Error('no sidecar to test: cargo build --release, or set CLOAKROOM_BIN')
  return built.sort((a, b) => fs.statSync(b).mtimeMs - fs.statSync(a).mtimeMs)[0]
}

// Lines for the tables of proxy.toml; the first of the secrets signs, all verify.
export const startSidecar = async ({ app, secrets = [secret], server = '', session = '', cookie = '', store, tls = false }) => {
  const [port, admin] = [await freePort(), await freePort()]
  const home = newFolder('sidecar')
  fs.writeFileSync(
    path.join(home, 'proxy.toml'),
    `[[listener]]\naddress = "127.0.0.1:${port}"\n${tls ? 'tls = { self_signed = true }' : ''}\n[server]\nthreads = 1\n${server}\n[log]\naccess = false\n` +
      `[session]\nsecrets = ${JSON.stringify(secrets)}\n${session}\n[session.cookie]\n${cookie}\n[store]\n${store}\n` +
      `[upstream.app]\nservers = ["http://127.0.0.1:${app.port}"]\n[[route]]\npath = "/"\nupstream = "app"\n` +
      `[limits]\nsession_header = "256KiB"\nrequest_head = "256KiB"\n[admin]\naddress = "127.0.0.1:${admin}"\n`,
  )
  const child = run(sidecarBinary(), ['--config', 'proxy.toml'], { cwd: home })
  const ready = () =>
    new Promise((resolve) => {
      http.get({ port: admin, path: '/readyz', agent: false }, (answer) => resolve(answer.resume().statusCode === 200)).on('error', () => resolve(false))
    })
  await eventually('the sidecar', () => (alive(child, 'the sidecar'), ready()))
  return { port, tls: tls && { rejectUnauthorized: false }, stop: child.stop, log: () => child.text }
}

// --- clients

const agent = new http.Agent({ keepAlive: true, maxSockets: 8 })

const finished = async (answer) => {
  let body = ''
  for await (const bytes of answer.setEncoding('utf8')) body += bytes
  return { status: answer.statusCode, headers: answer.headers, body }
}

const overHttp1 = (port, target, headers) =>
  new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: target, headers, agent }, (answer) => resolve(finished(answer)))
    request.on('error', reject)
  })

const secureAgent = new https.Agent({ keepAlive: true, maxSockets: 8 })

// Lines as they are, doubles and all, from a loopback address of choice.
export const rawHttp1 = ({ port, tls }, { method, target, lines, from }) =>
  new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: target, method, headers: lines.flat(), localAddress: from }
    const answered = (answer) => resolve(finished(answer))
    const request = tls ? https.request({ ...options, ...tls, agent: secureAgent }, answered) : http.request({ ...options, agent }, answered)
    request.on('error', reject).end()
  })

// Prior knowledge; a connection for each request is enough for what is looked at here.
const overHttp2 = (port, target, headers) =>
  new Promise((resolve, reject) => {
    const session = http2.connect(`http://127.0.0.1:${port}`).on('error', reject)
    const stream = session.request({ ':path': target, ...headers }).setEncoding('utf8').on('error', reject)
    let head
    let body = ''
    stream.on('response', (seen) => (head = seen)).on('data', (bytes) => (body += bytes))
    stream.on('end', () => {
      session.close()
      resolve({ status: head[':status'], headers: head, body })
    })
  })

// The same over HTTP/2: a field may come in several lines, and the Host is the authority.
export const rawHttp2 = ({ port }, { method, target, lines, from }) =>
  new Promise((resolve, reject) => {
    const fields = { ':method': method, ':path': target }
    for (const [name, value] of lines) {
      const key = name === 'Host' ? ':authority' : name.toLowerCase()
      fields[key] = fields[key] === undefined ? value : [fields[key], value].flat()
    }
    const session = http2.connect(`http://127.0.0.1:${port}`, { localAddress: from }).on('error', reject)
    const stream = session.request(fields).setEncoding('utf8').on('error', reject)
    stream.end()
    let head
    let body = ''
    stream.on('response', (seen) => (head = seen)).on('data', (bytes) => (body += bytes))
    stream.on('end', () => {
      session.close()
      resolve({ status: head[':status'], headers: head, body })
    })
  })

// A browser that knows one cookie.
export class Browser {
  cookie

  async ask({ port }, page, argument, http2 = false) {
    const target = page + (argument === undefined ? '' : `?arg=${encodeURIComponent(JSON.stringify(argument))}`)
    const headers = this.cookie ? { cookie: this.cookie } : {}
    const response = await (http2 ? overHttp2 : overHttp1)(port, target, headers)
    const lines = [response.headers['set-cookie'] ?? []].flat()
    if (lines.length > 1) throw new Error(`two cookies: ${lines}`)
    response.setCookie = lines[0]
    if (response.setCookie) {
      this.cookie = response.setCookie.includes('Expires=Thu, 01 Jan 1970') ? undefined : response.setCookie.split(';')[0]
    }
    return response
  }

  get sid() {
    return this.cookie && /=s:(.*)\./.exec(decodeURIComponent(this.cookie))[1]
  }
}
