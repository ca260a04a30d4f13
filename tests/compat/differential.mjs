// The same random traces against (a) Express with express-session and (b) the plain app behind the sidecar: contract §1, §4, §6. After
// every request statuses, bodies, all Set-Cookie lines (the ticket and moments masked) and, with MongoDB, what is stored are the same.
//   node tests/compat/differential.mjs [--seed N] [--traces N] [--trace N alone] [--table]
import assert from 'node:assert/strict'
import { parseArgs } from 'node:util'
import cookieSerializer from 'cookie'
import signature from 'cookie-signature'
import { except, exceptions, table, usage } from './exceptions.mjs'
import { startExpress } from './express-app.mjs'
import { describeCookie, inspector, same, withoutTogether } from './inspect.mjs'
import { startPlain } from './plain-app.mjs'
import { makeData, makeRandom } from './random.mjs'
import { rawHttp1, rawHttp2, secret, startMongod, startSidecar } from './rig.mjs'
import { sidecarStore } from './stores.mjs'

const { values } = parseArgs({ options: { seed: { type: 'string' }, traces: { type: 'string' }, trace: { type: 'string' }, table: { type: 'boolean' } } })
if (values.table) {
  console.log(table())
  process.exit(0)
}
const seed = Number(values.seed ?? Math.floor(Math.random() * 1e9))
const traces = Number(values.traces ?? 60)
const oldSecret = 'the-secret-of-last-year-0123456789abcdef'
const version = 'mongo-6.0'

// --- options

const randomOptions = ({ pick, chance, maybe }) => {
  const cookie = {
    path: pick(['/', '/', '/', '/app', '/app/', '/a%20b']),
    domain: maybe(pick(['example.com', '.example.com', 'app.example.com', 'localhost'])),
    httpOnly: pick([true, true, false]),
    secure: pick([true, false, false, 'auto', 'auto']),
    sameSite: pick([undefined, 'lax', 'strict', 'none', 'auto', 'auto']),
    partitioned: pick([undefined, undefined, true, false]),
    priority: pick([undefined, undefined, 'low', 'medium', 'high']),
    maxAge: pick([null, null, 60_000, 3_600_000, 86_400_000, 12_345_678, 34_560_000_000]),
  }
  const names = ['connect.sid', 'sid', 's', "a!#$%&'*+-.^_`|~9", 'Connect.Sid']
  if (cookie.secure === true) names.push('__Secure-sid')
  if (cookie.secure === true && cookie.path === '/' && cookie.domain === undefined) names.push('__Host-sid')
  const inMongo = chance(0.5)
  const o = {
    name: pick(names),
    rotated: chance(0.3),
    resave: pick([false, true]),
    saveUninitialized: pick([false, true]),
    rolling: pick([false, true]),
    unset: pick(['keep', 'destroy']),
    proxy: pick([undefined, undefined, undefined, true, false]),
    clear: chance(0.5),
    trust: pick([undefined, false, true, 1, 2, 0, 'loopback', ['loopback', '10.0.0.0/8'], ['10.0.0.0/8'], ['127.0.0.2'], '127.0.0.1', '127.0.0.1/32, 10.0.0.1', ['127.0.0.0/255.255.255.0']]),
    cookie,
    tls: chance(0.2),
    // Half of the browsers stay with the protocol they came with.
    steady: chance(0.5),
    store: inMongo ? { ttl: 86_400, stringify: pick([true, false]), touchAfter: pick([0, 0, 3600]), timestamps: pick([false, true]) } : undefined,
  }
  // exceptions.mjs: touchAfter is no change.
  if (o.store?.touchAfter > 0 && o.resave) {
    except('touchAfter is no change')
    o.resave = false
  }
  return o
}

const secretsOf = (o) => (o.rotated ? [secret, oldSecret] : [secret])

const expressOptions = (o, place) => ({
  trustProxy: o.trust,
  tls: o.tls,
  session: {
    name: o.name,
    secret: secretsOf(o),
    resave: o.resave,
    saveUninitialized: o.saveUninitialized,
    rolling: o.rolling,
    unset: o.unset,
    ...(o.proxy === undefined ? {} : { proxy: o.proxy }),
    cookie: Object.fromEntries(Object.entries(o.cookie).filter(([, value]) => value !== undefined)),
  },
  ...(o.store ? { store: { version, options: o.store, place } } : {}),
})

const toml = (value) => JSON.stringify(value)
const lines = (entries) => entries.filter(([, value]) => value !== undefined).map(([key, value]) => `${key} = ${toml(value)}`).join('\n')

const sidecarOptions = (o, place, app) => ({
  app,
  tls: o.tls,
  secrets: secretsOf(o),
  server: lines([['trust_proxy', o.trust]]),
  session: lines([
    ...[['name', o.name], ['resave', o.resave], ['save_uninitialized', o.saveUninitialized], ['rolling', o.rolling], ['unset', o.unset]],
    ...[['proxy', o.proxy], ['clear_cookie_on_destroy', o.clear]],
  ]),
  cookie: lines([
    ...[['path', o.cookie.path], ['domain', o.cookie.domain], ['http_only', o.cookie.httpOnly], ['secure', o.cookie.secure], ['same_site', o.cookie.sameSite ?? 'unset']],
    ...[['partitioned', o.cookie.partitioned], ['priority', o.cookie.priority], ['max_age', o.cookie.maxAge === null ? 'session' : `${o.cookie.maxAge}ms`]],
  ]),
  store: o.store ? sidecarStore(version, o.store, place) : 'kind = "memory"\nttl = "86400s"',
})

// --- requests

const protos = ['https', 'https', 'http', 'HTTPS', 'https, http', 'http, https', 'https,http', ' https', 'https ', '', 'wss']
const addresses = ['203.0.113.7', '10.1.2.3', '127.0.0.1', '10.1.2.3, 203.0.113.7', 'unknown', '::1', '203.0.113.7, 127.0.0.1']
const hosts = ['app.example.com', 'example.com', 'localhost:8080', '127.0.0.1', 'app.example.com, other.example.com']

const randomForwarding = ({ pick, chance }) => {
  const found = [['Host', pick(['app.example.com', 'localhost:3000', '127.0.0.1'])]]
  const header = (p, name, list) => {
    if (!chance(p)) return
    found.push([name, pick(list)])
    if (chance(0.1)) found.push([name, pick(list)])
  }
  header(0.7, 'X-Forwarded-Proto', protos)
  header(0.3, 'X-Forwarded-For', addresses)
  header(0.2, 'X-Forwarded-Host', hosts)
  return { lines: found, from: pick(['127.0.0.1', '127.0.0.1', '127.0.0.2']) }
}

const randomPath = ({ pick, chance }, { path }) => {
  const inside = path.endsWith('/') ? path.slice(0, -1) : path
  if (chance(0.8)) return inside + pick(['', '', '/deeper', inside && 'lication', '/'])
  return pick(['', '/other', '/App', '/%61pp', '/', '/ap'])
}

const sign = (sid, key) => `s:${signature.sign(sid, key)}`
const encode = encodeURIComponent

// The cookies of one request, as [left, right] texts; `winner` is the pair that counts. Only `own` differs between the worlds.
const randomCookies = (random, o, pair, at) => {
  const { pick, chance } = random
  const [left, right] = pair
  const parts = []
  const add = (kind, texts) => parts.push({ kind, texts: Array.isArray(texts) ? texts : [texts, texts] })
  const named = (value) => `${o.name}=${value}`
  if (left.value !== undefined && !chance(0.05)) {
    const old = o.rotated && left.sid !== undefined && chance(0.2)
    const quote = chance(0.1) ? (value) => `"${value}"` : (value) => value
    const key = (browser) => (old ? encode(sign(browser.sid, oldSecret)) : browser.value)
    add(old ? 'own, old key' : 'own', [named(quote(key(left))), named(quote(key(right)))])
  }
  if (chance(0.15)) add('forged', named(encode(sign('somebody', 'a secret that nobody has'))))
  if (chance(0.1)) add('unsigned', named(pick(['', 'plain', 's:', 's%3Aa', 'j%3A%7B%7D', '%E0%A4%A', '"', encode(sign('', secret))])))
  if (chance(0.1)) add('foreign', named(encode(sign(`foreign-${at}`, secret))))
  // In any order, among others.
  parts.sort(() => random.next() - 0.5)
  const noise = () => pick(['a=1', 'theme="dark; x', `${o.name}x=1`, `${o.name.toUpperCase()}y=2`, 'b', ' =c', ''])
  const all = parts.flatMap(({ texts }) => {
    const other = noise()
    return chance(0.2) ? [[other, other], texts] : [texts]
  })
  // In one header or in several.
  const several = chance(0.3)
  const asLines = (texts) => (texts.length === 0 ? [] : several ? texts.map((text) => ['Cookie', text]) : [['Cookie', texts.join('; ')]])
  return { parts, lines: [0, 1].map((world) => asLines(all.map((texts) => texts[world]))) }
}

// --- comparing

const setCookies = (response) => response.headers['set-cookie'] ?? []
const isClear = (line) => line.includes('Expires=Thu, 01 Jan 1970 00:00:00 GMT')
const isDate = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT$/
const describe = (line) => {
  const expires = /Expires=([^;]*)/.exec(line ?? '')
  if (expires) assert.match(expires[1], isDate)
  return describeCookie(line)
}
// What a cookie looks like with the attributes of a request (`now`: what express-session resolves the two "auto" to).
const expected = (o, now, value, expires) => {
  const { maxAge, ...attributes } = o.cookie
  return cookieSerializer.serialize(o.name, value, { ...attributes, secure: now.secure, sameSite: now.sameSite, expires })
}
const maskAuto = (o, text) => {
  let masked = text
  if (o.cookie.secure === 'auto') masked = masked.replace('; Secure', '').replace(/\\?"secure\\?":(true|false)/, '<secure>')
  if (o.cookie.sameSite === 'auto') masked = masked.replace(/; SameSite=\w+/, '').replace(/\\?"sameSite\\?":\\?"\w+\\?"/, '<sameSite>')
  return masked
}
const masked = (o, { text, moments }) => ({ text: maskAuto(o, text), moments })

const sidOf = (value) => /^s:(.*)\./s.exec(decodeURIComponent(value))[1]

class Jar {
  value
  sid

  take(name, lines) {
    for (const line of lines) {
      if (!line.startsWith(`${name}=`)) continue
      const value = line.slice(name.length + 1).split(';')[0]
      this.value = isClear(line) ? undefined : value
      this.sid = isClear(line) ? undefined : sidOf(value)
    }
  }

  hold(sid) {
    this.value = encode(sign(sid, secret))
    this.sid = sid
  }

  drop() {
    this.value = undefined
    this.sid = undefined
  }
}

// --- one trace

const drawn = [
  ...['/get', '/get', '/get', '/inc', '/inc', '/inc', '/put', '/merge', '/merge', '/remove', '/replace', '/save', '/reload'],
  ...['/login', '/login', '/renew', '/age', '/age', '/unset', '/logout'],
]
const statuses = [...Array(12).fill(200), 201, 204, 301, 304, 400, 401, 404, 410, 500, 503]

const walk = async (number, mongod, plain) => {
  const random = makeRandom(seed + 7919 * number)
  const { pick, below, chance } = random
  const o = randomOptions(random)
  const places = ['sidecar', 'express'].map((world) => ({ url: mongod.url, collection: `differential_${number}_${world}` }))
  const [sidecar, express] = await Promise.all([startSidecar(sidecarOptions(o, places[0], plain)), startExpress(expressOptions(o, places[1]))])
  const stored = o.store && (await Promise.all(places.map((place) => inspector('mongodb', o.store, place))))
  const data = makeData(random, { text: !o.store || o.store.stringify, proto: true })
  const makeArgument = {
    '/login': () => ({ id: below(100) }),
    '/put': () => data.object(3),
    '/remove': () => [data.key()],
    '/merge': () => data.object(3),
    '/replace': () => data.object(4),
    '/age': () => pick([null, 60, 3600, 34_560_000]),
  }
  const browsers = [0, 1].map(() => ({ pair: [new Jar(), new Jar()], forwarding: randomForwarding(random), made: undefined, mixed: false, live: false }))
  const trace = [JSON.stringify(o)]

  // Documents, and how many there are.
  const compareStored = async ({ pair, mixed, saved }) => {
    if (!stored) return
    const [ours, theirs] = await Promise.all(pair.map(({ sid }, world) => (sid === undefined ? { text: '-', moments: [] } : stored[world].read(sid))))
    const shown = (found) => (mixed ? masked(o, saved ? withoutTogether(found) : found) : saved ? withoutTogether(found) : found)
    same('stored', shown(ours), shown(theirs))
    assert.equal(await stored[0].count(), await stored[1].count(), 'number of stored sessions')
  }

  const parallel = async (browser) => {
    const { pair, forwarding } = browser
    const patches = Array.from({ length: 2 + below(3) }, (_, index) => ({ [`parallel${index}`]: below(100) }))
    const target = `${o.cookie.path.replace(/\/$/, '')}/merge?arg=`
    trace.push(`  parallel ${JSON.stringify(patches)}`)
    const ask = (world, url) =>
      rawHttp1(world === 0 ? sidecar : express, { method: 'GET', target: url, from: forwarding.from, lines: [...forwarding.lines, ['Cookie', `${o.name}=${pair[world].value}`]] })
    for (const world of [0, 1]) {
      const answers = await Promise.all(patches.map((patch) => ask(world, target + encode(JSON.stringify(patch)))))
      for (const answer of answers) assert.equal(answer.status, 200)
    }
    const inside = o.cookie.path.replace(/\/$/, '')
    const answers = [await ask(0, `${inside}/get`), await ask(1, `${inside}/get`)]
    const [ours, theirs] = answers.map(({ body }) => JSON.parse(body))
    for (const [key, value] of patches.flatMap(Object.entries)) assert.equal(ours[key], value, 'a parallel merge')
    if (patches.flatMap(Object.keys).some((key) => theirs[key] === undefined)) except('parallel merges')
    // The same again in both worlds.
    for (const world of [0, 1]) await ask(world, `${inside}/replace?arg=${encode('{"n":1}')}`)
    if (differs(browser.made, JSON.parse(answers[1].headers['x-moment']))) browser.mixed = true
    await compareStored(browser)
  }
  const differs = (one, other) => JSON.stringify(one) !== JSON.stringify(other)

  const step = async (at) => {
    const browser = pick(browsers)
    const { pair } = browser
    const [left, right] = pair
    if (!o.steady && chance(0.5)) browser.forwarding = randomForwarding(random)
    if (browser.live && left.value !== undefined && chance(0.05)) return parallel(browser)
    let page = pick(drawn)
    // exceptions.mjs: touchAfter is no change.
    if (page === '/save' && o.store?.touchAfter > 0) page = '/get'
    const argument = makeArgument[page]?.()
    const status = pick(statuses)
    const method = pick(['GET', 'GET', 'GET', 'HEAD', 'POST'])
    const path = randomPath(random, o.cookie)
    const query = [argument === undefined ? '' : `arg=${encode(JSON.stringify(argument))}`, status === 200 ? '' : `status=${status}`].filter(Boolean)
    const target = `${path}${page}${query.length ? `?${query.join('&')}` : ''}`
    const cookies = randomCookies(random, o, pair, at)
    const { lines: forwarding, from } = browser.forwarding
    // Which cookie counts: the first that verifies and is alive, else the first that verifies.
    const verified = cookies.parts.filter(({ kind }) => kind.startsWith('own') || kind === 'foreign')
    const winner = verified.find(({ kind }) => kind.startsWith('own') && browser.live) ?? verified[0]
    const later = winner !== undefined && cookies.parts[0] !== winner
    trace.push(`${method} ${target} [${cookies.parts.map(({ kind }) => kind).join(', ')}] ${JSON.stringify(forwarding)} from ${from}`)

    // A value with a blank at an end is malformed in HTTP/2 (RFC 9113 §8.2.1) and refused; in HTTP/1 it is trimmed.
    const trimmed = [...forwarding, ...cookies.lines[0]].every(([, value]) => value === value.trim())
    const over = !o.tls && trimmed && chance(0.3) ? rawHttp2 : rawHttp1
    const ours = await over(sidecar, { method, target, from, lines: [...forwarding, ...cookies.lines[0]] })
    const alone = later && [['Cookie', winner.texts[1]]]
    const theirs = await rawHttp1(express, { method, target, from, lines: [...forwarding, ...(alone || cookies.lines[1])] })

    const now = JSON.parse(theirs.headers['x-moment'] ?? '{}')
    if (o.tls && o.cookie.secure === 'auto' && now.secure !== undefined) assert.equal(now.secure, true, 'TLS is TLS')
    const inside = theirs.headers['x-sid'] !== undefined || theirs.headers['x-moment'] !== undefined
    assert.deepEqual([ours.status, ours.body], [theirs.status, theirs.body], 'answer')
    const own = winner?.kind.startsWith('own') === true && browser.live
    if (later && inside) except('later cookie')
    if (page === '/save' && inside) except('save refreshes')
    // The session that this response is about was made by an earlier request, of which "auto" may remember something else.
    const keeps = own && !['/login', '/renew'].includes(page)
    const auto = o.cookie.secure === 'auto' || o.cookie.sameSite === 'auto'
    const otherMoment = auto && keeps && inside && differs(browser.made, now)
    compareCookies({ browser, own, page, now, otherMoment, winner, cookies, inside, argument, ours: setCookies(ours), theirs: setCookies(theirs) })
    left.take(o.name, setCookies(ours))
    right.take(o.name, setCookies(theirs))
    after(browser, { own, page, inside, now, otherMoment, sid: theirs.headers['x-sid'], ours, theirs })
    await compareStored(browser)
  }

  const compareCookies = ({ browser, own, page, now, otherMoment, winner, cookies, inside, argument, ours, theirs }) => {
    let mine = ours
    // With no session of its own to follow, a response says so only when it sets a new one.
    const signed = cookies.parts.filter(({ kind }) => kind === 'foreign' || kind.startsWith('own')).length
    const twin = own ? cookies.parts.some(({ kind }) => kind === 'foreign') : signed > 1
    const forget = mine.slice(0, -1).filter(isClear)
    if (twin && inside && forget.length > 0) {
      except('dead twin')
      for (const line of forget) assert.ok(line.startsWith(`${o.name}=;`), line)
      mine = mine.slice(-1)
    }
    assert.ok(mine.length <= 1 && theirs.length <= 1, 'more than one cookie')
    const [one] = mine
    const [other] = theirs
    if (one && isClear(one)) {
      except('destroy clears')
      assert.ok(o.clear && (page === '/logout' || (page === '/unset' && o.unset === 'destroy')), 'cleared')
      assert.equal(one, expected(o, now, '', new Date(0)), 'cleared')
      assert.equal(other, undefined)
      return
    }
    const described = describe(one)
    if (one && !other) {
      const fits = [undefined, new Date(0)].map((expires) => describe(expected(o, now, 's:x', expires)).text)
      const reason = [
        [own && winner.kind === 'own, old key', 'old key'],
        [twin, 'dead twin'],
        [!own && page === '/save', 'save sets'],
        [page === '/age' && argument === null, 'max-age=session'],
        [otherMoment && browser.made.secure && !now.secure, 'auto of the moment'],
      ].find(([holds]) => holds)
      assert.ok(reason, `Set-Cookie out of nothing: ${one}`)
      except(reason[1])
      assert.ok(fits.includes(described.text), `${one} is not like ${fits}`)
      return
    }
    if (otherMoment && one && other) {
      if (described.text !== describe(other).text) except('auto of the moment')
      same('Set-Cookie', masked(o, described), masked(o, describe(other)))
      assert.equal(/; Secure/.test(one), now.secure === true, 'Secure of the moment')
      return
    }
    if (otherMoment && other && !one) assert.fail(`no cookie, but ${other}`)
    same('Set-Cookie', described, describe(other))
  }

  // What both browsers hold from now on; where a deliberate difference drove them apart they are brought together.
  const after = (browser, { own, page, inside, now, otherMoment, sid, ours, theirs }) => {
    const [left, right] = browser.pair
    if (!inside) return
    // A session that was not shown was not touched either.
    if (page === '/save' || (own && page !== '/unset')) browser.saved = page === '/save'
    if (otherMoment) browser.mixed = true
    const set = (response) => setCookies(response).some((line) => line.startsWith(`${o.name}=s%3A`))
    const cleared = setCookies(ours).some((line) => line.startsWith(`${o.name}=;`)) && !set(ours)
    if (cleared) right.drop()
    if (!own && set(ours) && !set(theirs)) right.hold(sid)
    if (page === '/logout' || (page === '/unset' && o.unset === 'destroy')) {
      if (own) browser.live = false
    } else if (set(ours) && (!own || page === '/login' || page === '/renew')) {
      Object.assign(browser, { live: true, made: now, mixed: false })
    } else if (own && (page === '/login' || page === '/renew')) {
      // A new sid whose cookie could not be set: this browser is signed out.
      browser.live = false
    }
  }

  try {
    for (let at = 0; at < 25; at++) await step(at)
  } catch (error) {
    console.error(`trace ${number}, seed ${seed} (--seed ${seed} --trace ${number}):\n  ${trace.join('\n  ')}\n${sidecar.log().slice(-1500)}`)
    throw error
  }
  assert.equal(await sidecar.stop(), 0, sidecar.log())
  express.stop()
}

console.log(`seed ${seed}`)
const start = Date.now()
const mongod = await startMongod()
const plain = await startPlain()
const numbers = values.trace === undefined ? Array.from({ length: traces }, (_, number) => number) : [Number(values.trace)]
const count = numbers.length
await Promise.all(
  Array.from({ length: 5 }, async () => {
    for (let number; (number = numbers.shift()) !== undefined; ) await walk(number, mongod, plain)
  }),
)
console.log(`${count} traces of 25 requests in ${((Date.now() - start) / 1000).toFixed(1)} s: the sidecar decides as express-session does`)
console.log(`deliberate differences met (of ${Object.keys(exceptions).length}, exceptions.mjs): ${usage()}`)
process.exit(0)
