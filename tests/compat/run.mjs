// The sidecar before an app without session code, against express-session and connect-mongo, both real.
//   node tests/compat/run.mjs [seed [walks]]        binary: CLOAKROOM_BIN, else the newest under target/
//
// 1. The story: login, 50 increments over HTTP/1.1 and HTTP/2, logout. After each step the document is what connect-mongo wrote for the
//    same steps elsewhere, and an Express app on the same collection and secret reads the session.
// 2. The walk: random steps; in one world the sidecar and Express serve the same sessions in turns, in the other Express alone. Answers,
//    cookies and documents are the same in both.
import assert from 'node:assert/strict'
import { EJSON } from 'bson'
import { MongoClient } from 'mongodb'
import { Browser, secret, startApp, startMongod, startSidecar } from './rig.mjs'

const hour = 3600
// express-session's and connect-mongo's options, seconds and all, and the sidecar's words for them.
const defaults = { resave: false, saveUninitialized: false, rolling: false, unset: 'keep', maxAge: null, touchAfter: 0, stringify: true, timestamps: false, ttl: 14 * 24 * hour }

const expressOptions = (o, url, collection) => ({
  url,
  collection,
  secret,
  session: {
    resave: o.resave,
    saveUninitialized: o.saveUninitialized,
    rolling: o.rolling,
    unset: o.unset,
    cookie: { maxAge: o.maxAge === null ? null : o.maxAge * 1000, sameSite: 'lax', secure: false },
  },
  store: { touchAfter: o.touchAfter, stringify: o.stringify, timestamps: o.timestamps, ttl: o.ttl },
})

const sidecarOptions = (o, url, collection, app, more = '') => ({
  app,
  session: `resave = ${o.resave}\nsave_uninitialized = ${o.saveUninitialized}\nrolling = ${o.rolling}\nunset = "${o.unset}"\n${more}`,
  cookie: `secure = false\nmax_age = "${o.maxAge === null ? 'session' : `${o.maxAge}s`}"`,
  store: `kind = "mongodb"\nurl = "${url}"\ncollection = "${collection}"\nstringify = ${o.stringify}\ntimestamps = ${o.timestamps}\ntouch_after = "${o.touchAfter}s"\nttl = "${o.ttl}s"`,
})

// --- what is compared

// The document with its BSON types and its order of fields; moments are taken out into a list.
const describe = (document) => {
  if (!document) return { text: 'no document', moments: [] }
  const moments = []
  const moment = (milliseconds) => `<moment ${moments.push(milliseconds)}>`
  const shown = EJSON.serialize({ ...document, _id: '<sid>' }, { relaxed: false })
  // With stringify off connect-mongo stores undefined as null; not at all is as good.
  const cookie = shown.session?.cookie
  if (cookie) for (const key of Object.keys(cookie)) if (cookie[key] === null && !['originalMaxAge', 'expires'].includes(key)) delete cookie[key]
  const text = JSON.stringify(shown)
    // express-session looks at the clock twice when it makes a cookie, so its originalMaxAge is a millisecond short now and then.
    .replace(/(originalMaxAge\\?":(?:\{"\$number\w+":")?)(\d+)/, (_, before, digits) => before + Math.ceil(digits / 1000) * 1000)
    .replace(/\{"\$date":\{"\$numberLong":"(\d+)"\}\}/g, (_, digits) => moment(Number(digits)))
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, (iso) => moment(Date.parse(iso)))
  return { text, moments }
}

const describeCookie = (line) => {
  if (!line) return { text: 'no cookie', moments: [] }
  const moments = []
  const text = line.replace(/=s%3A[^;]*/, '=<ticket>').replace(/Expires=([^;]*)/, (_, date) => `Expires=<moment ${moments.push(Date.parse(date))}>`)
  return { text, moments }
}

const same = (what, ours, theirs) => {
  assert.equal(ours.text, theirs.text, what)
  ours.moments.forEach((moment, index) => {
    const apart = Math.abs(moment - theirs.moments[index])
    assert.ok(apart < 5000, `${what}: moment ${index + 1} is ${apart} ms off`)
  })
}

// --- the two parts

const stored = (database, collection, sid) =>
  sid ? database.collection(collection).findOne({ _id: sid }, { promoteValues: false, promoteLongs: false }) : null

const story = async (name, options, mongod, database) => {
  const o = { ...defaults, ...options }
  const [mine, theirs] = [`story_${name}`, `story_${name}_express`]
  const plain = await startApp('plain-app.mjs')
  const [sidecar, express, reader] = await Promise.all([
    startSidecar(sidecarOptions(o, mongod.url, mine, plain)),
    startApp('express-app.mjs', expressOptions(o, mongod.url, theirs)),
    startApp('express-app.mjs', expressOptions({ ...o, resave: false, saveUninitialized: false }, mongod.url, mine)),
  ])
  const [left, right] = [new Browser(), new Browser()]
  const step = async (page, argument, http2) => {
    const what = `story ${name}, ${page}`
    const answers = [await left.ask(sidecar, page, argument, http2), await right.ask(express, page, argument)]
    assert.deepEqual(answers.map(({ status, body }) => [status, body])[0], [answers[1].status, answers[1].body], what)
    if (page === '/logout') return answers
    same(`${what}: Set-Cookie`, describeCookie(answers[0].setCookie), describeCookie(answers[1].setCookie))
    same(`${what}: document`, describe(await stored(database, mine, left.sid)), describe(await stored(database, theirs, right.sid)))
    const other = new Browser()
    other.cookie = left.cookie
    const read = await other.ask(reader, '/get')
    assert.deepEqual(JSON.parse(read.body), JSON.parse(answers[0].body), `${what}: Express reads the session`)
    return answers
  }
  await step('/login', { id: 7, name: 'Zoë "😀" \u2028', roles: ['a', null, 1.5, -0.25, 1e21, 12345678901] }, false)
  for (let n = 1; n <= 50; n++) {
    const [answer] = await step('/inc', undefined, n % 2 === 0)
    assert.equal(JSON.parse(answer.body).n, n)
  }
  await step('/get', undefined, true)
  const sid = left.sid
  const [answer] = await step('/logout')
  assert.match(answer.setCookie, /^connect\.sid=; Path=\/; Expires=Thu, 01 Jan 1970 00:00:00 GMT/)
  assert.equal(await stored(database, mine, sid), null, 'the document is gone')
  assert.equal(await sidecar.stop(), 0, sidecar.log())
  await Promise.all([express.stop(), reader.stop(), plain.stop()])
}

const random = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const walk = async (number, steps, seed, mongod, database) => {
  const next = random(seed + number)
  const pick = (list) => list[Math.floor(next() * list.length)]
  const o = {
    ...defaults,
    resave: pick([false, false, true]),
    saveUninitialized: pick([false, true]),
    rolling: pick([false, true]),
    unset: pick(['keep', 'destroy']),
    maxAge: pick([null, hour, 90 * 24 * hour]),
    touchAfter: pick([0, hour]),
    stringify: pick([true, true, false]),
    timestamps: pick([false, true]),
  }
  // connect-mongo with touchAfter shows `lastModified` in the session and takes it out when it saves: express-session then sees a
  // change where the app made none, and sets the cookie once more. The contract has data that changed, so the two are kept apart.
  if (o.touchAfter > 0) o.resave = false
  const [mixed, alone] = [`walk_${number}_mixed`, `walk_${number}_express`]
  const plain = await startApp('plain-app.mjs')
  const [sidecar, partner, express] = await Promise.all([
    // express-session clears no cookie when a session is destroyed.
    startSidecar(sidecarOptions(o, mongod.url, mixed, plain, 'clear_cookie_on_destroy = false')),
    startApp('express-app.mjs', expressOptions(o, mongod.url, mixed)),
    startApp('express-app.mjs', expressOptions(o, mongod.url, alone)),
  ])
  const value = () => pick([1, 0, -7, 1.5, 'text', 'Zoë 😀 \u0000\u007f\u2028"\\', true, false, [], [1, { a: null }], { deep: { x: [2] } }, ''])
  const object = () => Object.fromEntries([...'abc'].filter(() => next() < 0.5).map((key) => [key, value()]))
  const arguments_ = {
    '/login': () => ({ id: Math.floor(next() * 100) }),
    // A merge goes into objects, an assignment replaces them: only values that are none say the same to both.
    '/set': () => Object.fromEntries(Object.entries(object()).map(([key, v]) => [`s${key}`, next() < 0.3 ? null : typeof v === 'object' ? 0 : v])),
    '/replace': object,
  }
  const browsers = [0, 1, 2].map(() => [new Browser(), new Browser()])
  const trace = [JSON.stringify(o)]
  try {
    for (let step = 0; step < steps; step++) {
      const [left, right] = pick(browsers)
      const drawn = pick(['/get', '/get', '/inc', '/inc', '/inc', '/set', '/set', '/replace', '/save', '/login', '/unset', '/logout'])
      // `save` of a session that is not stored yet also sets the cookie, which express-session does not do; for touchAfter see above.
      const apart = drawn === '/save' && (o.touchAfter > 0 || !(await stored(database, mixed, left.sid)))
      const page = apart ? '/get' : drawn
      const argument = arguments_[page]?.()
      const [server, over] = pick([[sidecar, false], [sidecar, true], [partner, false]])
      trace.push(`${server === sidecar ? 'sidecar' : 'Express'}${over ? ' h2' : ''} ${page} ${JSON.stringify(argument) ?? ''}`)
      const ours = await left.ask(server, page, argument, over)
      const theirs = await right.ask(express, page, argument)
      assert.deepEqual([ours.status, JSON.parse(ours.body)], [theirs.status, JSON.parse(theirs.body)], 'answer')
      same('Set-Cookie', describeCookie(ours.setCookie), describeCookie(theirs.setCookie))
      same('document', describe(await stored(database, mixed, left.sid)), describe(await stored(database, alone, right.sid)))
      const count = (name) => database.collection(name).countDocuments()
      assert.equal(await count(mixed), await count(alone), 'number of documents')
    }
  } catch (error) {
    console.error(`walk ${number}, seed ${seed}:\n  ${trace.join('\n  ')}\n${sidecar.log().slice(-2000)}`)
    throw error
  }
  assert.equal(await sidecar.stop(), 0, sidecar.log())
  await Promise.all([partner.stop(), express.stop(), plain.stop()])
}

const seed = Number(process.argv[2] ?? Math.floor(Math.random() * 1e9))
const mongod = await startMongod()
const client = await MongoClient.connect(mongod.url)
const database = client.db()
const stories = {
  defaults: {},
  max_age: { maxAge: hour },
  rolling: { maxAge: hour, rolling: true },
  touch_after: { touchAfter: hour },
  timestamps: { timestamps: true },
  objects: { stringify: false, maxAge: hour },
  everything: { resave: true, saveUninitialized: true, rolling: true, maxAge: hour, touchAfter: hour, timestamps: true },
}
for (const [name, options] of Object.entries(stories)) {
  await story(name, options, mongod, database)
  console.log(`story ${name}: login, 50 increments, logout: every document is connect-mongo's`)
}
const [walks, steps] = [Number(process.argv[3] ?? 10), 40]
console.log(`walks with seed ${seed}`)
for (let number = 0; number < walks; number++) await walk(number, steps, seed, mongod, database)
console.log(`${walks} walks of ${steps} steps: sidecar and Express in turns, the same as Express alone`)
await client.close()
await mongod.stop()
process.exit(0)
