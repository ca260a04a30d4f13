// What really is in a store, looked at with a driver of its own: the stored text (or document with its BSON types and its order of
// fields) with every moment taken out into a list, and the moments at which the session's fate turns.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { BSON, MongoClient } from 'mongodb'
import { createClient } from 'redis'
import { hashedId } from './stores.mjs'

const nothing = { text: 'nothing stored', moments: [], ends: undefined, touchDue: undefined }

// express-session looks at the clock twice when it makes a cookie, so its originalMaxAge is a millisecond short now and then.
const wholeSeconds = (text) =>
  text.replace(/(originalMaxAge\\?":(?:\{"\$number\w+":")?)(\d+)/, (_, before, digits) => before + Math.ceil(digits / 1000) * 1000)

const takeMoments = (source, more = []) => {
  const moments = []
  const moment = (milliseconds) => `<moment ${moments.push(milliseconds)}>`
  const text = wholeSeconds(source)
    .replace(/("__lastAccess":)(\d+)/, (_, before, digits) => before + moment(Number(digits)))
    .replace(/\{"\$date":\{"\$numberLong":"(\d+)"\}\}/g, (_, digits) => moment(Number(digits)))
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, (iso) => moment(Date.parse(iso)))
  return { text, moments: [...moments, ...more] }
}

let mongo
const inspectMongodb = async (o, { url, collection }, decrypt) => {
  mongo ??= MongoClient.connect(url)
  const found = (await mongo).db().collection(collection)
  const raw = { promoteValues: false, promoteLongs: false }
  return {
    read: async (sid) => {
      const document = await found.findOne({ _id: o.hashedId ? hashedId(sid) : sid }, raw)
      if (!document) return nothing
      if (decrypt && typeof document.session === 'string') document.session = await decrypt(document.session)
      const shown = BSON.EJSON.serialize({ ...document, _id: '<sid>' }, { relaxed: false })
      // With stringify off connect-mongo stores undefined as null; not at all is as good.
      const cookie = shown.session?.cookie
      if (cookie) for (const key of Object.keys(cookie)) if (cookie[key] === null && !['originalMaxAge', 'expires'].includes(key)) delete cookie[key]
      const touchDue = document.lastModified && o.touchAfter ? Number(document.lastModified) + o.touchAfter * 1000 : undefined
      // A save writes one moment into both places, a touch only into one: too close to tell apart by the clock.
      const written = typeof document.session === 'string' ? JSON.parse(document.session).cookie?.expires : document.session?.cookie?.expires
      const together = written ? `, expires ${Number(new Date(written)) === Number(document.expires) ? 'as' : 'not as'} in the cookie` : ''
      const { text, moments } = takeMoments(JSON.stringify(shown))
      return { text: text + together, moments, ends: Number(document.expires), touchDue }
    },
    exact: async (sid) => BSON.EJSON.serialize(await found.findOne({ _id: o.hashedId ? hashedId(sid) : sid }, raw), { relaxed: false }),
    count: () => found.countDocuments(),
  }
}

// express-session's explicit save is followed by a touch some milliseconds later.
export const withoutTogether = ({ text, moments }) => ({ text: text.replace(/, expires (not )?as in the cookie$/, ''), moments })

let redis
const inspectRedis = async (_, { url, prefix = 'sess:' }) => {
  redis ??= createClient({ url }).connect()
  const client = await redis
  return {
    read: async (sid) => {
      const [text, left] = await Promise.all([client.get(prefix + sid), client.pTTL(prefix + sid)])
      if (text === null) return nothing
      assert.ok(left > 0, `${prefix + sid} has no expiry`)
      const ends = Date.now() + left
      return { ...takeMoments(text, [ends]), ends, touchDue: undefined }
    },
    exact: async (sid) => ({ key: prefix + sid, value: await client.get(prefix + sid), ttl: await client.ttl(prefix + sid) }),
    count: async () => (await client.keys(`${prefix.replace(/[*?[\]\\]/g, '\\$&')}*`)).length,
  }
}

const inspectFile = async (o, place) => ({
  read: async (sid) => {
    const file = path.join(place.path, `${sid}.json`)
    if (!fs.existsSync(file)) return nothing
    const text = fs.readFileSync(file, 'utf8')
    const { cookie, __lastAccess } = JSON.parse(text)
    return { ...takeMoments(text), ends: __lastAccess + (cookie?.originalMaxAge || o.ttl * 1000), touchDue: undefined }
  },
  exact: async (sid) => ({ file: `${sid}.json`, text: fs.readFileSync(path.join(place.path, `${sid}.json`), 'utf8') }),
  // An unfinished file that somebody forgot counts too.
  count: async () => fs.readdirSync(place.path).filter((name) => /\.json$|tmp|\.json\./.test(name)).length,
})

// decrypt: from a stored text to the session as JSON text; with encryption only.
export const inspector = (kind, options, place, decrypt) =>
  ({ mongodb: inspectMongodb, redis: inspectRedis, file: inspectFile })[kind](options, place, decrypt)

export const describeCookie = (line) => {
  if (!line) return { text: 'no cookie', moments: [] }
  const moments = []
  const text = line.replace(/=s%3A[^;]*/, '=<ticket>').replace(/Expires=([^;]*)/, (_, date) => `Expires=<moment ${moments.push(Date.parse(date))}>`)
  return { text, moments }
}

// Equal, and moments close: the same thing happened in the two worlds a little apart.
export const same = (what, ours, theirs, slack = 2500) => {
  assert.equal(ours.text, theirs.text, what)
  assert.equal(ours.moments.length, theirs.moments.length, what)
  ours.moments.forEach((moment, index) => {
    const apart = Math.abs(moment - theirs.moments[index])
    assert.ok(apart < slack, `${what}: moment ${index + 1} is ${apart} ms off`)
  })
}
