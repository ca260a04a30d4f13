// The walk. World A: the sidecar and Express serve the same sessions in turns, by chance. World B: Express alone. The same random steps in
// both; after every one the answers, the cookies and what is stored are the same.
import assert from 'node:assert/strict'
import signature from 'cookie-signature'
import { except } from './exceptions.mjs'
import { startExpress } from './express-app.mjs'
import { describeCookie, inspector, same, withoutTogether } from './inspect.mjs'
import { makeData, makeRandom } from './random.mjs'
import { Browser, eventually, secret, startSidecar } from './rig.mjs'
import { sidecarStore, versions } from './stores.mjs'

const [hour, day] = [3600, 86400]
const oldSecret = 'the-secret-of-last-year-0123456789abcdef'
const webSecret = 'the-web-crypto-secret-0123456789abcdef'
// Seconds where express-session has milliseconds.
export const defaults = { resave: false, saveUninitialized: false, rolling: false, unset: 'keep', maxAge: null, rotated: false, store: { ttl: 14 * day } }

// --- the same options in both languages

export const secretsOf = (o) => (o.rotated ? [secret, oldSecret] : [secret])

export const expressSession = (o) => ({
  secret: secretsOf(o),
  resave: o.resave,
  saveUninitialized: o.saveUninitialized,
  rolling: o.rolling,
  unset: o.unset,
  cookie: { maxAge: o.maxAge === null ? null : o.maxAge * 1000, sameSite: 'lax', secure: false },
})

export const sidecarSession = (o, more = '') =>
  `resave = ${o.resave}\nsave_uninitialized = ${o.saveUninitialized}\nrolling = ${o.rolling}\nunset = "${o.unset}"\n${more}`

export const sidecarCookie = (o) => `secure = false\nmax_age = "${o.maxAge === null ? 'session' : `${o.maxAge}s`}"`

const storeOptions = (version, { pick, chance }, short) => {
  const { kind, kruptein, webCrypto } = versions[version]
  const o = { ttl: short ? pick([3, 14 * day]) : pick([14 * day, hour]) }
  if (kind === 'redis') o.disableTouch = pick([undefined, false, true, true])
  if (kind !== 'mongodb') return o
  o.touchAfter = pick([0, 0, hour, 2])
  o.stringify = pick([true, true, false])
  if (webCrypto) o.timestamps = pick([false, true])
  o.hashedId = chance(0.3)
  // kruptein 3.4 refuses simple secrets.
  const krupteinOptions = () => ({ secret: 'Kruptein! Squirrel? No. 1234 AB', ...pick([{}, { hashing: 'sha256' }, { hashing: 'sha384', encodeas: 'hex' }]) })
  if (webCrypto && chance(0.4)) {
    // Fewer iterations than the default of 310,000 only because the key is derived anew for every trace.
    o.crypto = { secret: webSecret, iterations: 1000, ...pick([{}, { salt: 'pepper' }, { encoding: 'hex' }, { salt: 'x', encoding: 'base64url' }]) }
  } else if (kruptein && chance(0.4)) {
    // Sidecars read what kruptein sealed and seal it their own way: Express hands over for good.
    o.kruptein = krupteinOptions()
  }
  return o
}

const randomOptions = (version, random, number) => {
  const { pick } = random
  // Whatever else chance brings, every run has some of these.
  const short = number % 4 === 1
  const o = {
    resave: pick([false, false, true]),
    saveUninitialized: pick([false, true]),
    rolling: pick([false, true]),
    unset: pick(['keep', 'destroy']),
    maxAge: short ? pick([3, 3, null]) : pick([null, hour, 90 * day]),
    rotated: number % 4 === 2 || pick([false, false, true]),
    store: storeOptions(version, random, short),
    takeover: undefined,
    short,
  }
  if (short && o.maxAge === null) o.store.ttl = 3
  if (o.store.kruptein) o.takeover = true
  // connect-mongo with touchAfter shows `lastModified` in the session and takes it out when it saves: express-session then sees a
  // change where the app made none, and sets the cookie once more. The contract has data that changed, so the two are kept apart.
  if (o.store.touchAfter > 0) o.resave = false
  return o
}

// --- what surrounds a trace

// A step must be over before the session's fate turns in one of the worlds.
const margin = 1000

// Waits until every moment at which something happens to this session is far off, or past in both worlds.
const settle = async (browsers, lapse) => {
  const turns = (browser) => [browser.seen?.ends, browser.seen?.touchDue].filter((moment) => moment !== undefined)
  if (lapse) {
    const ends = browsers.map((browser) => browser.seen?.ends ?? 0)
    // Hours are not waited for.
    if (Math.max(...ends) - Date.now() < 10_000) await eventually('the end of a session', () => Math.max(...ends) + 50 < Date.now())
  }
  const close = () => browsers.flatMap(turns).filter((moment) => moment + 50 > Date.now() && moment - Date.now() < margin)
  await eventually('a quiet moment', () => close().length === 0)
  return Math.min(...browsers.flatMap(turns).filter((moment) => moment > Date.now()), Infinity)
}

const sign = (sid, key) => `connect.sid=${encodeURIComponent(`s:${signature.sign(sid, key)}`)}`

// From what is stored to JSON text. `stores`: the real stores of that version, which know how to decrypt.
const decryptWith = (stores) => async (sealed) => {
  for (const store of stores) {
    const document = { session: sealed }
    try {
      await store.decryptSession(document)
    } catch {
      continue
    }
    return typeof document.session === 'string' ? document.session : JSON.stringify(document.session)
  }
  throw new Error(`nobody can decrypt ${sealed}`)
}

// Where session-file-store's `__lastAccess` stands among data that was replaced whole is nobody's to say.
const lastAccessLast = ({ text, moments }) => {
  const [found] = /,"__lastAccess":<moment \d+>/.exec(text) ?? ['']
  return { text: text.replace(found, '') + found, moments }
}

const makeArguments = (random, data) => ({
  '/login': () => ({ id: random.below(100), name: data.any() }),
  '/put': () => data.object(3),
  '/remove': () => [data.key(), data.key()],
  '/merge': () => data.object(3),
  '/replace': () => data.object(5),
  '/age': () => random.pick([hour, day, 1000]),
  '/date': () => random.pick(['2024-02-29T12:00:00.123Z', '1969-12-31T23:59:59.999Z']),
})
const drawn = [
  ...['/get', '/get', '/get', '/inc', '/inc', '/inc', '/put', '/put', '/remove', '/merge', '/merge', '/replace', '/save'],
  ...['/login', '/login', '/renew', '/age', '/date', '/unset', '/logout'],
]

const startWorlds = async ({ version, plain, placeOf }, name, o) => {
  const [mixed, alone] = [placeOf(version, `${name}_mixed`), placeOf(version, `${name}_express`)]
  // The sidecar has both keys; connect-mongo has one or the other.
  const sidecarOptions = o.takeover ? { ...o.store, crypto: { secret: webSecret, iterations: 1000 } } : o.store
  const express = (place) => startExpress({ session: expressSession(o), store: { version, options: o.store, place } })
  const [sidecar, partner, lonely] = await Promise.all([
    // express-session clears no cookie when a session is destroyed.
    startSidecar({
      app: plain,
      secrets: secretsOf(o),
      session: sidecarSession(o, 'clear_cookie_on_destroy = false'),
      cookie: sidecarCookie(o),
      store: sidecarStore(version, sidecarOptions, mixed),
    }),
    express(mixed),
    express(alone),
  ])
  let decrypt
  if (o.store.crypto || o.takeover) {
    const webCrypto = o.takeover && (await versions['mongo-6.0'].make({ ...sidecarOptions, kruptein: undefined }, mixed))
    decrypt = decryptWith([partner.store, webCrypto].filter(Boolean))
  }
  const { kind } = versions[version]
  const [left, right] = await Promise.all([mixed, alone].map((place) => inspector(kind, o.store, place, decrypt)))
  return { sidecar, partner, lonely, left, right }
}

export const walk = async (context, number, steps, seed) => {
  const { version, done } = context
  const random = makeRandom(seed + 7919 * number)
  const { pick, below, chance } = random
  const o = randomOptions(version, random, number)
  const { kind } = versions[version]
  const text = kind !== 'mongodb' || o.store.stringify || o.store.crypto !== undefined || o.takeover
  // The driver that connect-mongo 3.2 brings reads a field named `__proto__` into nowhere.
  const data = makeData(random, { text, proto: text || version !== 'mongo-3.2' })
  const worlds = await startWorlds(context, `walk_${version}_${number}`, o)
  const { sidecar, partner, lonely } = worlds
  const makeArgument = makeArguments(random, data)
  const pairs = [0, 1, 2].map(() => [new Browser(), new Browser()])
  const trace = [JSON.stringify(o)]

  const step = async (at) => {
    const pair = pick(pairs)
    const [left, right] = pair
    if (o.rotated && left.sid && chance(0.2)) {
      // As if the cookie were from before the rotation.
      for (const browser of pair) browser.cookie = sign(browser.sid, oldSecret)
      trace.push('  (signed by the old secret)')
    }
    if (chance(0.02)) {
      for (const browser of pair) browser.cookie = sign(`forged-${at}`, 'a secret that nobody has')
      for (const browser of pair) browser.seen = undefined
      trace.push('  (forged)')
    }
    const wasStored = left.seen !== undefined && left.seen.ends > Date.now()
    const lapse = chance(0.1)
    const quiet = await settle(pair, lapse)
    const live = left.seen !== undefined && left.seen.ends > Date.now()
    if (wasStored && !live) done.lapses += 1
    // `save` of a session that is not stored yet also sets the cookie, which express-session does not do; for touchAfter see above.
    let page = pick(drawn)
    if (page === '/save' && (o.store.touchAfter > 0 || !live)) page = '/get'
    const takenOver = o.takeover && at >= steps / 3
    if (page === '/date' && takenOver) page = '/get'
    if (page === '/save') except('save refreshes')
    const argument = makeArgument[page]?.()
    const servers = page === '/date' || (o.takeover && !takenOver) ? [[partner, false]] : [[sidecar, false], [sidecar, true], ...(o.takeover ? [] : [[partner, false]])]
    const [server, over] = pick(servers)
    trace.push(`${server === sidecar ? 'sidecar' : 'Express'}${over ? ' h2' : ''} ${page} ${JSON.stringify(argument) ?? ''}`)
    const oldKey = o.rotated && left.cookie !== undefined && left.cookie === sign(left.sid, oldSecret)

    const began = Date.now()
    const ours = await left.ask(server, page, argument, over)
    const theirs = await right.ask(lonely, page, argument)
    ;[left.seen, right.seen] = await Promise.all([left.sid ? worlds.left.read(left.sid) : undefined, right.sid ? worlds.right.read(right.sid) : undefined])
    const ended = Date.now()
    if (ended >= quiet) return false // Too slow: a session's end fell between the worlds.

    // Moments differ by no more than the steps took that wrote them.
    pair.slack = Math.max(pair.slack ?? 0, ended - began)
    assert.deepEqual([ours.status, ours.body], [theirs.status, theirs.body], 'answer')
    if (oldKey && live && server === sidecar && ours.setCookie && !theirs.setCookie) {
      // The sidecar signs a cookie of an old secret anew, so that the old one can be retired.
      assert.match(describeCookie(ours.setCookie).text, /^connect\.sid=<ticket>; Path=\/;( Expires=<moment 1>;)? HttpOnly; SameSite=Lax$/, 're-signed')
      assert.equal(ours.setCookie.split(';')[0], sign(right.sid === undefined ? '' : left.sid, secret), 're-signed')
      except('old key')
    } else if (kind === 'file' && (o.resave || page === '/save') && live && !ours.setCookie && theirs.setCookie) {
      // session-file-store writes `__lastAccess` into the session that it saves: express-session sees a change where the app made none.
      assert.ok(['/get', '/save', '/remove', '/put', '/merge', '/replace'].includes(page), 'Set-Cookie')
      except('__lastAccess is no change')
    } else {
      // Expires has whole seconds.
      same('Set-Cookie', describeCookie(ours.setCookie), describeCookie(theirs.setCookie), pair.slack + 1100)
    }
    if (page === '/replace' && server === sidecar) pair.replaced = true
    else if (!live || ['/login', '/renew', '/logout'].includes(page)) pair.replaced = false
    if (page !== '/unset') pair.saved = page === '/save'
    const ordered = (seen = { text: '-', moments: [] }) => (pair.replaced ? lastAccessLast(seen) : seen)
    const shown = (seen) => (pair.saved ? withoutTogether(ordered(seen)) : ordered(seen))
    same('stored', shown(left.seen), shown(right.seen), pair.slack + 100)
    // Redis forgets by itself, and not in both worlds at once.
    if (kind !== 'redis' || !o.short) assert.equal(await worlds.left.count(), await worlds.right.count(), 'number of stored sessions')
    return true
  }
  try {
    for (let at = 0; at < steps; at++) {
      if (!(await step(at))) {
        done.cut += 1
        break
      }
      done.steps += 1
    }
  } catch (error) {
    console.error(`${version}, trace ${number}, seed ${seed}:\n  ${trace.join('\n  ')}\n${sidecar.log().slice(-2000)}`)
    throw error
  }
  assert.equal(await sidecar.stop(), 0, sidecar.log())
  partner.stop()
  lonely.stop()
}
