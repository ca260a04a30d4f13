// Writes tests/fixtures/golden/<package>-<version>+express-session-<version>/<case>.json: cookies and stored sessions that the released
// packages really wrote, what the sidecar must be told to read them, and the X-Session that its app must then see.
// tests/it/golden.rs reads them.   node tests/compat/generate-golden.mjs [--only redis-9.0,…]
//
// Every moment lies in the year 2099, so that the sessions stay alive. Sids are the same in every run; what is encrypted is not.
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import Module, { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import signature from 'cookie-signature'
import { MongoClient, BSON } from 'mongodb'
import { startExpress } from './express-app.mjs'
import { inspector } from './inspect.mjs'
import { ascii } from './plain-app.mjs'
import { newFolder, rawHttp1, startMongod, startRedis } from './rig.mjs'
import { hashedId, sidecarStore, versions } from './stores.mjs'

const RealDate = Date
const ahead = RealDate.UTC(2099, 0, 1) - RealDate.now()
globalThis.Date = class extends RealDate {
  constructor(...parts) {
    if (parts.length === 0) super(RealDate.now() + ahead)
    else super(...parts)
  }

  static now() {
    return RealDate.now() + ahead
  }
}

const require = createRequire(import.meta.url)
const here = path.dirname(fileURLToPath(import.meta.url))
const { values } = parseArgs({ options: { only: { type: 'string' } } })
const chosen = values.only?.split(',') ?? Object.keys(versions)
const expressSession = JSON.parse(fs.readFileSync(path.join(here, 'node_modules', 'express-session', 'package.json'))).version

const secret = 'the-golden-secret-0123456789abcdef-0123456789'
const older = 'the-golden-secret-of-last-year-0123456789abcdef'
const quarter = 90 * 86_400_000

// --- what is put into the sessions

const user = { user: { id: 7, name: 'Ada', roles: ['admin', 'editor'] }, n: 1, empty: '', nothing: null, yes: true, no: false }
const unicode = {
  umlaut: 'Zoë', han: '漢字', astral: '😀', control: '\u0000\u0001\u001f\u007f', separators: '\u2028\u2029', quotes: '"\\/\'<>&', 'ключ': { 'é"': ['\n\t'] },
}
const numbers = {
  list: [0, 1, -1, 0.1, -0.25, 1.5, 1e21, 1e-7, 123456789012345680000, 2147483647, 2147483648, -2147483648, -2147483649, 9007199254740991, 2 ** 53, 2 ** 63],
  largest: Number.MAX_VALUE, smallest: 5e-324, float: 3.141592653589793, whole: 5, millions: 12345678.9,
}
const integerKeys = { b: 1, 10: 'ten', a: { 2: 'two', x: 0, 1: 'one', '01': 'no integer' }, 2: 'two', 4294967294: 'the last', 4294967295: 'beyond', '-1': 'below' }
const proto = JSON.parse('{"a":{"__proto__":{"admin":true},"constructor":1,"cookie":{"path":"/x"},"id":2},"protos":[{"__proto__":null}]}')
const deep = { deep: Array.from({ length: 40 }).reduce((inner, _, at) => (at % 2 ? [inner] : { d: inner }), 'bottom') }
const large = { cart: Array.from({ length: 150 }, (_, at) => ({ sku: `sku-${at}`, name: `Thing № ${at}`, price: at * 1.25, options: { gift: at % 3 === 0, note: null } })) }
const everything = { ...user, ...unicode, ...numbers, ...integerKeys, ...proto }

// --- cases: pages visited one after the other, and the data afterwards. Options as in stores.mjs, `session` ones are express-session's.

const set = (data) => [['/replace', data]]
const common = {
  plain: { visits: set(user), data: user },
  'max-age': { session: { maxAge: quarter }, visits: set(user), data: user },
  'cookie-attributes': {
    session: { maxAge: quarter, cookie: { domain: 'example.com', httpOnly: false, sameSite: 'strict', priority: 'high', partitioned: true } },
    visits: set(user), data: user,
  },
  empty: { session: { saveUninitialized: true }, visits: [['/get']], data: {} },
  unicode: { visits: set(unicode), data: unicode },
  numbers: { visits: set(numbers), data: numbers },
  'integer-keys': { visits: set(integerKeys), data: integerKeys },
  proto: { visits: set(proto), data: proto },
  deep: { visits: set(deep), data: deep },
  large: { visits: set(large), data: large },
  updated: { session: { maxAge: quarter }, visits: [...set(user), ['/put', { z: [1], 3: 'three', a: {} }], ['/remove', ['n']]], data: { 3: 'three', ...without(user, 'n'), z: [1], a: {} } },
  touched: { session: { maxAge: quarter, rolling: true }, visits: [...set(user), ['/get']], data: user },
  regenerated: { session: { maxAge: quarter }, visits: [...set(user), ['/login', { id: 8 }]], data: { user: { id: 8 } } },
  'max-age-of-its-own': { visits: [...set({ a: 1 }), ['/age', 86_400]], data: { a: 1, n: 1 } },
  'rotated-secret': { rotated: true, visits: set(user), data: user },
}
// Halves of characters, which BSON's strings cannot hold but JSON text can.
const halves = { half: 'x\ud83dy', other: '\ude00' }
const text = { 'half-characters': { visits: set(halves), data: halves } }
const webSecret = 'the-golden-web-crypto-secret-0123456789abcdef'
const krupteinSecret = 'Golden! Kruptein? No. 1234 ABCD'
const mongodb = {
  objects: { store: { stringify: false }, session: { maxAge: quarter }, visits: set(everything), data: everything },
  'objects-empty': { store: { stringify: false }, session: { saveUninitialized: true }, visits: [['/get']], data: {} },
  'objects-with-a-date': {
    store: { stringify: false }, visits: [...set({ a: 1 }), ['/date', '2024-02-29T12:00:00.123Z']], data: { a: 1, when: '2024-02-29T12:00:00.123Z' },
  },
  'touch-after': { store: { touchAfter: 3600 }, session: { maxAge: quarter }, visits: set(user), data: user },
  'transform-id': { store: { hashedId: true }, visits: set(user), data: user },
}
const timestamps = { timestamps: { store: { timestamps: true }, session: { maxAge: quarter }, visits: [...set(user), ['/inc']], data: { ...user, n: 2 } } }
const kruptein = {
  'crypto-kruptein': { store: { kruptein: { secret: krupteinSecret } }, visits: set(everything), data: everything },
  'crypto-kruptein-objects': { store: { kruptein: { secret: krupteinSecret }, stringify: false }, visits: set(user), data: user },
  'crypto-kruptein-sha256-hex': { store: { kruptein: { secret: krupteinSecret, hashing: 'sha256', encodeas: 'hex' } }, visits: set(user), data: user },
}
// What `npm install connect-mongo@4` or @5 brings today. connect-mongo cannot read all of it back itself.
const newerKruptein = Object.fromEntries(Object.entries(kruptein).map(([name, entry]) => [`${name}-3.4.0`, { ...entry, kruptein34: true }]))
const webCrypto = {
  'crypto-web': { store: { crypto: { secret: webSecret } }, visits: set(everything), data: everything },
  'crypto-web-objects': { store: { crypto: { secret: webSecret, salt: 'pepper' }, stringify: false }, visits: set(user), data: user },
  'crypto-web-hex': { store: { crypto: { secret: webSecret, iterations: 1000, encoding: 'hex' } }, visits: set(user), data: user },
  'crypto-web-base64url': { store: { crypto: { secret: webSecret, iterations: 1000, encoding: 'base64url' } }, visits: set(unicode), data: unicode },
}
const redis = {
  prefix: { prefix: 'app:sessions:', visits: set(user), data: user },
  'disable-touch': { store: { disableTouch: true }, session: { maxAge: quarter }, visits: [...set(user), ['/get']], data: user },
}

function without(object, key) {
  const { [key]: _, ...rest } = object
  return rest
}

const casesOf = (version) => {
  const { kind, kruptein: sealed, webCrypto: web } = versions[version]
  if (kind === 'redis') return { ...common, ...text, ...redis }
  if (kind === 'file') return { ...common, ...text }
  return { ...common, ...text, ...mongodb, ...(sealed ? kruptein : {}), ...(sealed && !web ? newerKruptein : {}), ...(web ? { ...timestamps, ...webCrypto } : {}) }
}

// --- running one

const originalLoad = Module._load
const withKruptein34 = async (work) => {
  Module._load = (request, ...rest) => originalLoad(request === 'kruptein' ? require.resolve('kruptein-3.4') : request, ...rest)
  try {
    return await work()
  } finally {
    Module._load = originalLoad
  }
}

const run = async (version, name, entry, servers) => {
  const { kind } = versions[version]
  const id = `${version} ${name}`
  const store = { ttl: 14 * 86_400, ...entry.store }
  const places = {
    mongodb: { url: servers.mongod.url, collection: `golden_${version}_${name}` },
    redis: { url: servers.redis.url, prefix: entry.prefix ?? 'sess:' },
    file: { path: newFolder('golden') },
  }
  const place = places[kind]
  let made = 0
  const genid = () => createHash('sha256').update(`${id} ${made++}`).digest('base64url').slice(0, 32)
  const { maxAge = null, cookie = {}, ...session } = entry.session ?? {}
  const options = { secret: entry.rotated ? older : secret, resave: false, saveUninitialized: false, ...session, cookie: { sameSite: 'lax', secure: false, ...cookie, maxAge } }
  const start = () => startExpress({ session: { ...options, genid }, store: { version, options: store, place } })
  const app = await (entry.kruptein34 ? withKruptein34(start) : start())
  let line
  for (const [page, argument] of entry.visits) {
    const target = `${page}${argument === undefined ? '' : `?arg=${encodeURIComponent(JSON.stringify(argument))}`}`
    // Read back by the package itself where it can: touches and updates are its own.
    const cookie = line === undefined ? [] : [['Cookie', line.split(';')[0]]]
    const answer = await rawHttp1(app, { method: 'GET', target, lines: [['Host', 'app.test'], ...cookie] })
    if (answer.status !== 200) throw new Error(`${id} ${page}: ${answer.status} ${answer.body}`)
    line = answer.headers['set-cookie']?.[0] ?? line
  }
  app.stop()
  const sid = /^s:(.*)\./.exec(decodeURIComponent(/=([^;]*)/.exec(line)[1]))[1]
  if (line.split(';')[0] !== `connect.sid=${encodeURIComponent(`s:${signature.sign(sid, options.secret)}`)}`) throw new Error(line)
  const words = { mongodb: { url: '${URL}', collection: 'sessions' }, redis: { url: '${URL}', prefix: place.prefix }, file: { path: '${PATH}' } }[kind]
  // The kruptein reader is part of [store.crypto], which seals with a secret of its own.
  const told = store.kruptein ? { ...store, crypto: { secret: webSecret, iterations: 1000 } } : store
  const { secret: used, ...shown } = options
  return {
    case: name,
    package: versions[version].package,
    express_session: expressSession,
    ...(entry.kruptein34 ? { kruptein: '3.4.0' } : {}),
    options: { session: shown, store: entry.store ?? {} },
    secrets: entry.rotated ? [secret, older] : [used],
    set_cookie: line,
    sid,
    stored: await exactly(kind, version, store, place, sid),
    sidecar_store: sidecarStore(version, told, words),
    x_session: ascii(entry.data),
  }
}

// Bit for bit.
const exactly = async (kind, version, store, place, sid) => {
  const found = await (await inspector(kind, store, place)).exact(sid)
  if (kind !== 'mongodb') return found
  const client = await MongoClient.connect(place.url)
  const raw = await client.db().collection(place.collection).findOne({ _id: store.hashedId ? hashedId(sid) : sid }, { raw: true })
  await client.close()
  if (BSON.EJSON.stringify(BSON.deserialize(raw, { promoteValues: false }), { relaxed: false }) !== JSON.stringify(found)) throw new Error('read twice, and not the same')
  return { document: found, bson: Buffer.from(raw).toString('base64') }
}

const servers = { mongod: await startMongod(), redis: await startRedis() }
for (const version of chosen) {
  const folder = path.join(here, '..', 'fixtures', 'golden', `${versions[version].package}+express-session-${expressSession}`)
  fs.rmSync(folder, { recursive: true, force: true })
  fs.mkdirSync(folder, { recursive: true })
  const cases = Object.entries(casesOf(version))
  for (const [name, entry] of cases) {
    const result = await run(version, name, entry, servers)
    fs.writeFileSync(path.join(folder, `${name}.json`), `${JSON.stringify(result, null, 1)}\n`)
  }
  console.log(`${path.basename(folder)}: ${cases.length} cases`)
}
process.exit(0)
