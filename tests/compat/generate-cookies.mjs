// Writes the golden tables of tests/fixtures/cookies from the real packages: npm cookie, express-session's own cookie-signature,
// express-session itself behind a real HTTP server, and this Node's JSON. tests/it/cookie_table.rs reads them.
// Usage, in a folder whose node_modules has express-session 1.19: node <this file> <output folder>
// Same packages, same bytes: the randomness is seeded.
import { createRequire } from 'node:module'
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'

const require = createRequire(path.join(process.cwd(), 'here.js'))
const sessionPath = require.resolve('express-session')
const requireLikeSession = createRequire(sessionPath)
const session = require('express-session')
const cookie = requireLikeSession('cookie')
const signature = requireLikeSession('cookie-signature')
const version = (name, from) => {
  for (let folder = path.dirname(from.resolve(name)); ; folder = path.dirname(folder)) {
    const file = path.join(folder, 'package.json')
    if (fs.existsSync(file)) return JSON.parse(fs.readFileSync(file)).version
  }
}
const out = process.argv[2]
const write = (name, rows) => fs.writeFileSync(path.join(out, name), rows.map((row) => JSON.stringify(row) + '\n').join(''))

// mulberry32
let state = 20261120
const random = () => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const below = (n) => Math.floor(random() * n)
const pick = (list) => list[below(list.length)]
const chance = (p) => random() < p
const text = (alphabet, max, min = 0) => Array.from({ length: min + below(max - min + 1) }, () => pick(alphabet)).join('')

const letters = [...'abcdefXYZ0123456789-_']
const unicode = [...letters, ...'.: ;=%+/"\\é€😀\u0000\n\u007fß漢']
const randomSid = () => pick([
  () => text(letters, 32, 32), () => text(letters, 32, 32), () => text([...letters, '.'], 12, 1),
  () => text(unicode, 10, 1), () => '.', () => 'a.b.c', () => '..x', () => '', () => ' ', () => 'sid.'])()
const randomSecret = () => pick([() => text(letters, 40, 1), () => text(unicode, 80, 1), () => 'k'.repeat(64 + below(3)), () => 'keyboard cat'])()
const randomSecrets = () => Array.from({ length: 1 + below(3) }, randomSecret)

const unsign = (value, secrets) => {
  for (let key = 0; key < secrets.length; key++) {
    const sid = signature.unsign(value, secrets[key])
    if (sid !== false) return { sid, key }
  }
  return null
}
// Well-formed, because half an astral character is no text that could travel.
const tamper = (value) => chance(0.5) ? value : pick([
  (v) => v + '=', (v) => v.slice(0, -1), (v) => v + 'A', (v) => v.replace(/\+/g, '-').replace(/\//g, '_'),
  (v) => v.replace(/.$/, (c) => String.fromCharCode(c.charCodeAt(0) + 1)), (v) => v.replace('.', ''), (v) => 'x' + v,
  (v) => v.toLowerCase(), (v) => ' ' + v, (v) => v + ' ', (v) => v.replace(/\./, '..'), (v) => v.slice(v.lastIndexOf('.')),
  (v) => { const at = below(v.length); return v.slice(0, at) + pick(letters) + v.slice(at + 1) },
])(value).toWellFormed()

// Cookie headers. Each character is one byte, as Node reads them.
const junk = [...' \t;;;==",%"', ...'abs:.\\é\u0080\u00ff', 'sid', 'sid', 'sid=', '%41', '%C3%A9', '%c3', '%F0%9F%98%80', '%ED%A0%80', '%zz', '%', '%4', 's:', 's%3A', '"']
const encode = (value) => (chance(0.6) ? encodeURIComponent : pick([
  (v) => v, (v) => encodeURIComponent(v).toLowerCase(),
  (v) => [...Buffer.from(v)].map((b) => '%' + b.toString(16).padStart(2, '0')).join(''), (v) => encodeURIComponent(v) + '%',
]))(value)
const latin1 = (value) => [...Buffer.from(value)].map((b) => String.fromCharCode(b)).join('')
const quote = (value) => chance(0.5) ? value : pick([(v) => `"${v}"`, (v) => `"${v}`, (v) => `${v}"`, (v) => `""${v}""`, (v) => ` ${v}\t`, (v) => `" ${v} "`])(value)
const randomCookie = (name, secrets) => {
  const blank = () => text([' ', '\t'], 2)
  const own = () => {
    const signed = tamper(signature.sign(randomSid(), pick([...secrets, ...secrets, ...secrets, 'unknown'])))
    return quote(latin1(encode((chance(0.8) ? 's:' : pick(['', 'S:', 'j:', 's'])) + signed)))
  }
  return chance(0.55) ? `${name}=${own()}` : pick([
    () => `${blank()}${name}${blank()}=${blank()}${own()}${blank()}`,
    () => text(junk, 8), () => name, () => `${name}=${text(junk, 6).replace(/;/g, '')}`, () => `other=${own()}`,
    () => `${name.toUpperCase()}=${own()}`, () => `x${name}=1`, () => `${name}x=1`, () => `=${own()}`, () => '',
    () => `a=1; b="${name}=${own()}"`, () => `${name}==${own()}`, () => `${name} x=${own()}`,
  ])()
}
const headerRows = []
while (headerRows.length < 1200) {
  const [name, secrets] = [pick(['connect.sid', 'sid', 's', '__Host-sid']), randomSecrets()]
  const header = Array.from({ length: 1 + below(4) }, () => randomCookie(name, secrets)).join(pick(['; ', ';', ' ;', ';\t']))
    // Node refuses these in headers, so no proxy sees them either.
    .replace(/[\u0000-\u0008\u000a-\u001f\u007f]/g, '')
  const read = (line) => {
    const cookies = cookie.parse(line)
    return Object.prototype.hasOwnProperty.call(cookies, name) ? cookies[name] : null
  }
  const verify = (value) => (value?.startsWith('s:') && unsign(value.slice(2), secrets)) || null
  const value = read(header)
  // Of several, express-session looks at the first; the contract at the first that verifies. Both are recorded.
  const all = header.split(';').map(read).filter((value) => value !== null)
  const winner = all.map(verify).find((found) => found?.sid) ?? null
  const express = verify(value)?.sid || null
  if (all[0] !== (value ?? undefined) || (express !== null && express !== winner?.sid)) throw new Error(header)
  headerRows.push({ header, name, secrets, value, express, winner, count: all.length, signed: all.some((v) => v.startsWith('s:')) })
}
write(`cookie-${version('cookie', requireLikeSession)}.jsonl`, headerRows)

const signRows = []
while (signRows.length < 1200) {
  const [sid, secrets] = [randomSid(), randomSecrets()]
  const signed = signature.sign(sid, secrets[0])
  const value = tamper(signature.sign(sid, pick([...secrets, 'unknown'])))
  signRows.push({ sid, secrets, signed, value, unsigned: unsign(value, secrets) })
}
write(`cookie-signature-${version('cookie-signature', requireLikeSession)}.jsonl`, signRows)

// Set-Cookie, from express-session behind a server.
const setRows = []
for (let n = 0; n < 400; n++) {
  const maybe = (value) => (chance(0.5) ? value : undefined)
  const expires = maybe(below(2e9) * 1000 + 86400e3 * 365 * 60 + 500)
  const options = {
    path: pick(['/', '/', '/app', '/a/b%20c', '/x=y,z', '']), domain: maybe(pick(['example.com', '.a-b.example', 'localhost', 'X1.org'])),
    httpOnly: chance(0.7), secure: pick([true, false, 'auto', 'auto']), sameSite: pick([undefined, 'lax', 'strict', 'none', 'auto']),
    partitioned: maybe(chance(0.5)), priority: maybe(pick(['low', 'medium', 'high'])),
  }
  const row = {
    name: pick(['connect.sid', '__Host-s', "a!#$%&'*+-.^_`|~9"]), sid: pick([() => text(letters, 32, 32), () => text(unicode, 10, 1)])(),
    secrets: randomSecrets(), secure_request: chance(0.5), expires: expires ?? null,
  }
  const store = new session.MemoryStore()
  const use = session({
    name: row.name, secret: row.secrets, genid: () => row.sid, store, proxy: true, resave: false, saveUninitialized: true,
    cookie: { ...options, ...(expires === undefined ? {} : { expires: new Date(expires) }) },
  })
  const server = http.createServer((req, res) => use(req, res, () => res.end('ok')))
  await new Promise((done) => server.listen(0, '127.0.0.1', done))
  const lines = await new Promise((done, fail) => {
    const headers = { 'X-Forwarded-Proto': row.secure_request ? 'https' : 'http' }
    http.get({ port: server.address().port, host: '127.0.0.1', path: options.path || '/', headers, agent: false }, (res) => {
      res.resume().on('end', () => done(res.headers['set-cookie'] ?? []))
    }).on('error', fail)
  })
  server.close()
  const stored = JSON.parse(store.sessions[row.sid]).cookie
  // These two belong to the session, and express-session computes them from the clock.
  delete stored.expires
  delete stored.originalMaxAge
  const clear = cookie.serialize(row.name, '', { ...stored, expires: new Date(0) })
  if (lines.length > 1 || (expires !== undefined && lines.length && !lines[0].includes(new Date(expires).toUTCString()))) throw new Error(lines)
  setRows.push({ ...row, options, set_cookie: lines[0] ?? null, stored, clear })
}
write(`express-session-${version('express-session', require)}-set-cookie.jsonl`, setRows)

// JSON texts. `kept` rows hold numbers that JavaScript would change and the sidecar must not.
const space = () => (chance(0.8) ? '' : text([' ', '\t', '\n', '\r'], 2))
const anyDouble = () => {
  const value = new Float64Array(Uint32Array.of(below(2 ** 32), below(2 ** 32)).buffer)[0]
  return Number.isFinite(value) ? value : 1 / 3
}
const randomNumber = () => {
  const value = pick([
    () => below(1000), () => -below(1e9), () => random() * 10 ** (below(40) - 20), () => random(), () => 2 ** below(200), () => -(2 ** -below(60)),
    () => Number.MAX_SAFE_INTEGER, () => 5e-324, () => Number.MAX_VALUE, () => 0, () => below(100) / 100, () => 10 ** (below(50) - 25), anyDouble, anyDouble,
  ])()
  return pick([
    (v) => JSON.stringify(v), (v) => v.toExponential(), (v) => v.toExponential().replace('e', 'E').replace('+', ''),
    (v) => (JSON.stringify(v).includes('e') ? JSON.stringify(v) : JSON.stringify(v) + (Number.isInteger(v) ? '.' : '') + '00'), (v) => (v === 0 ? '-0' : v.toExponential().replace('e+', 'e+0')),
  ])(value)
}
const piece = ['a', 'b', 'é', '😀', '\u2028', '\u007f', ' ', '\\n', '\\/', '\\"', '\\\\', '\\u0041', '\\u00E9', '\\u0000', '\\u001F', '\\ud83d\\uDE00', '\\uD83D', '\\ude00', '\\b', '\\f', '\\u0022', '\\u005c', '\\u007f', '/']
const randomString = () => `"${text(piece, 6)}"`
const randomKey = () => pick([randomString, () => `"${below(30)}"`, () => pick(['"__proto__"', '"toJSON"', '"a"', '"b"', '"\\u0061"', '"01"', '"-1"', '"4294967294"', '"4294967295"', '"1.5"', '""'])])()
const randomJson = (depth) => {
  const s = space
  const many = (make) => Array.from({ length: below(5) }, make).join(`${s()},${s()}`)
  return pick([
    () => 'null', () => pick(['true', 'false']), randomNumber, randomString,
    ...(depth > 0 ? [1, 2, 3].flatMap(() => [
      () => `[${s()}${many(() => randomJson(depth - 1))}${s()}]`,
      () => `{${s()}${many(() => `${randomKey()}${s()}:${s()}${randomJson(depth - 1)}`)}${s()}}`,
    ]) : []),
  ])()
}
const parse = (source) => { try { return JSON.stringify(JSON.parse(source)) } catch { return null } }
const jsonRows = []
while (jsonRows.length < 900) {
  const source = space() + randomJson(4) + space()
  jsonRows.push({ text: source, out: parse(source) })
}
while (jsonRows.length < 1500) {
  const source = randomJson(3)
  const at = below(source.length)
  const broken = (source.slice(0, at) + pick(['', '', ',', '"', '\\', '}', ']', '{', ':', '0', '-', 'e', '\t', '\u00a0', '\ufeff', "'", '.'])
    + source.slice(at + below(2))).toWellFormed()
  if (parse(broken) === null) jsonRows.push({ text: broken, out: null })
}
for (const number of ['9007199254740993', '-9007199254740993', '12345678901234567890', '1e400', '-1e400', '1E-400', '3.14159265358979323846',
  '0.1000000000000000055511151231257827', '18446744073709551615', '1' + '0'.repeat(30) + '1', '123456789012345678', '1.00000000000000000001']) {
  jsonRows.push({ text: `{"a": [${number}]}`, out: `{"a":[${number}]}`, kept: true })
}
write(`json-node-${process.versions.node.split('.')[0]}.jsonl`, jsonRows)
