// The sidecar before an app without session code, against express-session and the session stores of its world, all real.
//   node tests/compat/run.mjs [--seed N] [--steps N for each version] [--only redis-9.0,mongo-6.0]
// The binary: CLOAKROOM_BIN, else the newest under target/. The full proof: --steps 2000.
//
// 1. The story: login, 50 increments over HTTP/1.1 and HTTP/2, logout. After each step what is stored is what the package wrote for
//    the same steps elsewhere, and an Express app on the same store and secret reads the session.
// 2. The walk (walk.mjs): random steps; in one world the sidecar and Express serve the same sessions in turns, in the other Express alone.
import assert from 'node:assert/strict'
import { parseArgs } from 'node:util'
import { usage } from './exceptions.mjs'
import { startExpress } from './express-app.mjs'
import { describeCookie, inspector, same } from './inspect.mjs'
import { startPlain } from './plain-app.mjs'
import { Browser, newFolder, startMongod, startRedis, startSidecar } from './rig.mjs'
import { sidecarStore, versions } from './stores.mjs'
import { defaults, expressSession, sidecarCookie, sidecarSession, walk } from './walk.mjs'

const { values } = parseArgs({ options: { seed: { type: 'string' }, steps: { type: 'string' }, only: { type: 'string' }, trace: { type: 'string' } } })
const seed = Number(values.seed ?? Math.floor(Math.random() * 1e9))
const steps = Number(values.steps ?? 120)
const chosen = values.only?.split(',') ?? Object.keys(versions)
for (const name of chosen) if (!versions[name]) throw new Error(`no version ${name}: ${Object.keys(versions).join(', ')}`)

const kinds = new Set(chosen.map((name) => versions[name].kind))
const mongod = kinds.has('mongodb') && (await startMongod())
const redis = kinds.has('redis') && (await startRedis())
const plain = await startPlain()
const placeOf = (version, name) => ({ mongodb: { url: mongod.url, collection: name }, redis: { url: redis.url, prefix: `${name}:` }, file: { path: newFolder(name) } })[versions[version].kind]

const story = async (version, name, options) => {
  const o = { ...defaults, ...options }
  const [mine, theirs] = [`story_${version}_${name}`, `story_${version}_${name}_express`].map((name) => placeOf(version, name))
  const express = (place, more) => startExpress({ session: expressSession({ ...o, ...more }), store: { version, options: o.store, place } })
  const [sidecar, alone, reader] = await Promise.all([
    startSidecar({ app: plain, session: sidecarSession(o), cookie: sidecarCookie(o), store: sidecarStore(version, o.store, mine) }),
    express(theirs),
    express(mine, { resave: false, saveUninitialized: false }),
  ])
  const [ours, yours] = await Promise.all([mine, theirs].map((place) => inspector(versions[version].kind, o.store, place)))
  const [left, right] = [new Browser(), new Browser()]
  const step = async (page, argument, http2) => {
    const what = `story ${version} ${name}, ${page}`
    const answers = [await left.ask(sidecar, page, argument, http2), await right.ask(alone, page, argument)]
    assert.deepEqual([answers[0].status, answers[0].body], [answers[1].status, answers[1].body], what)
    if (page === '/logout') return answers
    same(`${what}: Set-Cookie`, describeCookie(answers[0].setCookie), describeCookie(answers[1].setCookie))
    same(`${what}: stored`, await ours.read(left.sid), await yours.read(right.sid))
    const other = new Browser()
    other.cookie = left.cookie
    const read = await other.ask(reader, '/get')
    assert.equal(read.body, answers[0].body, `${what}: Express reads the session`)
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
  assert.equal((await ours.read(sid)).text, 'nothing stored', 'gone with the logout')
  assert.equal(await sidecar.stop(), 0, sidecar.log())
  alone.stop()
  reader.stop()
}

const hour = 3600
const stories = {
  mongodb: {
    defaults: {},
    max_age: { maxAge: hour },
    rolling: { maxAge: hour, rolling: true },
    touch_after: { store: { ...defaults.store, touchAfter: hour } },
    objects: { maxAge: hour, store: { ...defaults.store, stringify: false } },
    everything: { resave: true, saveUninitialized: true, rolling: true, maxAge: hour, store: { ...defaults.store, touchAfter: hour } },
  },
  redis: { max_age: { maxAge: hour } },
  file: { max_age: { maxAge: hour } },
}

// A few at a time: most of a trace is waiting for answers and for ends of sessions.
const inParallel = async (jobs, width) => {
  const lane = async () => {
    for (let job; (job = jobs.shift()); ) await job()
  }
  await Promise.all(Array.from({ length: width }, lane))
}

const report = (version, traces, { steps: walked, lapses, cut, start }) => {
  console.log(
    `${version.padEnd(10)} ${versions[version].package}: ${walked} steps in ${traces} traces, ${lapses} sessions lapsed, ` +
      `${((Date.now() - start) / 1000).toFixed(1)} s${cut ? `; ${cut} traces cut short by a slow machine` : ''}`,
  )
  assert.ok(values.trace !== undefined || walked >= steps * 0.9, 'too many traces were cut short')
}

console.log(`seed ${seed}`)
const jobs = chosen.flatMap((version) => {
  const traces = Math.max(4, Math.ceil(steps / 100))
  const done = { steps: 0, lapses: 0, cut: 0, start: undefined }
  const context = { version, plain, placeOf, done }
  const walks = Array.from({ length: traces }, (_, number) => () => walk(context, number, Math.ceil(steps / traces), seed))
  const told = Object.entries(stories[versions[version].kind]).map(([name, options]) => () => story(version, name, options))
  const all = values.trace === undefined ? [...walks, ...told] : [walks[Number(values.trace)]]
  let left = all.length
  return all.map((job) => async () => {
    done.start ??= Date.now()
    await job()
    left -= 1
    if (left === 0) report(version, traces, done)
  })
})
await inParallel(jobs, 8)
console.log(`deliberate differences met (exceptions.mjs): ${usage()}`)
process.exit(0)
