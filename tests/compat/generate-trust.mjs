// Writes tests/fixtures/trust-proxy/express-5.jsonl: what the real Express 5 and express-session answer for random
// `trust proxy` settings, peers and X-Forwarded-* lines. Deterministic. Run: node tests/compat/generate-trust.mjs [rows]
// (packages from tests/compat/node_modules, or from the folder named by TRUST_MODULES).
import http from 'node:http'
import fs from 'node:fs'
import path from 'node:path'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const here = path.dirname(fileURLToPath(import.meta.url))
const modules = process.env.TRUST_MODULES ?? path.join(here, 'node_modules')
const require = createRequire(path.join(modules, 'x.js'))
const express = require('express')
const session = require('express-session')
const rows = Number(process.argv[2] ?? 2400)

let seed = 20261120
const random = () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const below = n => Math.floor(random() * n)
const pick = list => list[below(list.length)]
const many = (min, max, make) => Array.from({ length: min + below(max - min + 1) }, make)
const maybe = (chance, make, otherwise) => random() < chance ? make() : otherwise

const v4 = () => pick([
  () => pick(['127.0.0.1', '127.8.9.1', '10.0.0.1', '10.1.2.3', '172.16.0.9', '172.32.0.1', '192.168.1.1', '192.169.0.1',
    '169.254.7.7', '203.0.113.7', '198.51.100.2', '8.8.8.8', '0.0.0.0', '255.255.255.255']),
  () => many(4, 4, () => below(256)).join('.'),
])()
const v6 = () => pick([
  () => pick(['::1', '::', 'fe80::1', 'fe80::abcd:1', 'fec0::1', 'fc00::5', 'fd12:3456::1', '2001:db8::7', '2001:db8:0:1::7', 'ff02::1',
    '64:ff9b::808:808', '::ffff:0:1', '1:2:3:4:5:6:7:8']),
  () => '::ffff:' + v4(),
  () => many(8, 8, () => below(65536).toString(16)).join(':'),
])()
const ip = () => maybe(0.6, v4, undefined) ?? v6()

// Half of the peers are such that lists usually trust them: otherwise few rows would get past the socket.
const peer = () => maybe(0.5, () => pick(['127.0.0.1', '::1', '::ffff:127.0.0.1', '10.1.2.3', '::ffff:10.1.2.3', '192.168.1.1', 'fd12:3456::1', 'fe80::1']), undefined) ?? ip()

const odd = [
  'unknown', '_hidden', '1.2.3.4:555', '[::1]', '[::1]:80', '"10.0.0.1"', '10.0.0', '10.0.0.256', '10.0.0.1.1', '010.0.0.1', '0177.0.0.1',
  '0x7f.0.0.1', '0X7f.0.0.1', '0x7f000001', '2130706433', '017700000001', '4294967296', '99999999999999999999', '09.0.0.1', '0', '-1', '1e3',
  '::ffff:010.0.0.1', '::ffff:0x7f.0.0.1', '::ffff:7f00:1', '::FFFF:127.0.0.1', '::127.0.0.1', '1:2:3:4:5:6:7:8:', '1:2:3:4:5:6:7:8::',
  '::1:2:3:4:5:6:7:8', '1:2:3:4:5:6::1.2.3.4', '1:2:3:4:5:6:1.2.3.4', 'a:::1.2.3.4', '1::2::3', ':::', ':1', '1:', '1::', 'fe80::1%eth0',
  'fe80::1%', '::1%25', '::1%a%b', '12345::', '00001::', '10.0.0.1/8', '10.0.0.1 10.0.0.2', '10.0.0.1;x', '\t10.0.0.1', '10.0.0.1\tx', 'caf\u00e9',
  '\u00a0', '127.0.0.1\u00a0', 'for=1.2.3.4', '\'', '*', 'localhost', 'LOOPBACK',
]
const item = () => maybe(0.7, ip, undefined) ?? pick(odd)

const cidr = () => {
  const address = ip()
  return pick([
    () => address,
    () => address + '/' + (1 + below(address.includes(':') ? 128 : 32)),
    () => address + '/' + pick([8, 12, 16, 24, 96, 104, 112, 120]),
    () => address + '/' + pick(['255.0.0.0', '255.255.0.0', '255.255.255.0', '255.255.255.255', '0xffffff00']),
    () => pick(['10.0.0.0/8', '127.0.0.1/8', '::ffff:10.0.0.0/104', '::ffff:0:0/96', '::ffff:0:0/95', '::/1', '::/64', '2001:db8::/32', '::ffff:127.0.0.1']),
  ])()
}
const listItem = () => pick([() => pick(['loopback', 'linklocal', 'uniquelocal']), cidr, cidr,
  () => maybe(0.06, () => pick([...odd, '', ' loopback', '0.0.0.0/0', '10.0.0.0/33', '::/129', '10.0.0.0/', '10.0.0.0/255.0.255.0',
    '::1/255.0.0.0', '10.0.0.0/x', '10.0.0.0/-1', 'a/b/8', '10.0.0.0/4294967040', '10.0.0.0/0']), undefined) ?? 'loopback'])()
const setting = () => pick([
  () => false,
  () => true,
  () => below(5),
  () => many(0, 4, listItem),
  () => many(1, 4, listItem),
  () => pick([['loopback'], ['uniquelocal', 'loopback'], ['loopback', 'linklocal', 'uniquelocal'], ['10.0.0.0/8', 'loopback']]),
])()

const separator = () => pick([', ', ', ', ',', ' , ', ',,', ', ,', ' ,'])
const join = items => items.reduce((text, next) => text === null ? next : text + separator() + next, null) ?? ''
// llhttp takes blanks and tabs off the ends of a line; a line built here must look as it does behind the parser.
const line = text => text.replace(/^[ \t]+|[ \t]+$/g, '')
const field = (name, make) => many(1, maybe(0.2, () => 3, 1), () => [name, line(maybe(0.05, () => '', undefined) ?? make())])
const protos = ['https', 'https', 'https', 'http', 'http', 'HTTPS', 'Https', 'wss', 'ws', 'ftp', 'junk value', 'http/1.1', '', 'https\u00a0', '\u00a0https']
const hosts = ['a.example', 'b.example:8443', 'A.Example', '[::1]:80', 'a b', '"x"', 'caf\u00e9', '', 'a.example\u00a0', '<x>', 'u@h']
const lines = () => [
  ...maybe(0.9, () => field('Host', () => pick(hosts)).slice(0, maybe(0.1, () => 2, 1)), []),
  ...maybe(0.85, () => field('X-Forwarded-For', () => maybe(0.04, () => ',', '') + join(many(1, 5, item)) + maybe(0.04, () => ', ', '')), []),
  ...maybe(0.7, () => field('X-Forwarded-Proto', () => join(many(1, maybe(0.3, () => 3, 1), () => pick(protos)))), []),
  ...maybe(0.6, () => field('X-Forwarded-Host', () => join(many(1, maybe(0.3, () => 3, 1), () => pick(hosts)))), []),
]

const quiet = { secret: 'x', resave: false, saveUninitialized: true, cookie: { secure: true } }
const sessions = { unset: session(quiet), true: session({ ...quiet, proxy: true }), false: session({ ...quiet, proxy: false }) }

function request (app, row) {
  const req = new http.IncomingMessage({ remoteAddress: row.peer ?? undefined, encrypted: row.tls || undefined })
  req.method = 'GET'
  req.url = '/'
  req._addHeaderLines(row.headers.flat(), row.headers.length * 2)
  Object.setPrototypeOf(req, app.request)
  return req
}

// `Set-Cookie` of a `secure` cookie appears exactly when express-session calls the request secure.
function issecure (app, row, middleware) {
  const req = request(app, row)
  const res = new http.ServerResponse(req)
  let passed = false
  middleware(req, res, () => { passed = true })
  if (!passed) throw new Error('express-session did not call next at once')
  res.writeHead(200)
  return res.getHeader('set-cookie') !== undefined
}

function answer (row) {
  const app = express()
  try {
    app.set('trust proxy', row.trust)
  } catch {
    const bad = row.trust.findIndex(item => { try { express().set('trust proxy', [item]); return false } catch { return true } })
    return { trust: row.trust, error: bad }
  }
  const req = request(app, row)
  return {
    ...row,
    ip: req.ip ?? null,
    protocol: req.protocol,
    secure: req.secure,
    host: req.host ?? null,
    session: Object.fromEntries(Object.entries(sessions).map(([name, middleware]) => [name, issecure(app, row, middleware)])),
  }
}

const out = path.join(here, '..', 'fixtures', 'trust-proxy', 'express-5.jsonl')
fs.mkdirSync(path.dirname(out), { recursive: true })
const texts = Array.from({ length: rows }, () => {
  const row = { trust: setting(), peer: maybe(0.95, peer, null), tls: random() < 0.25, headers: lines() }
  return JSON.stringify(answer(row))
})
fs.writeFileSync(out, texts.join('\n') + '\n')
console.log(`${rows} rows, ${texts.filter(text => text.includes('"error"')).length} of them refused settings`)
