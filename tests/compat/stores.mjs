// The session stores of the express world, each in its released version and with the driver of its time, and the sidecar's words for
// the same options. What is stored is looked at by inspect.mjs.
//
// Options of a store, all optional: ttl, touchAfter (seconds), stringify, timestamps, hashedId, crypto { secret, salt, iterations,
// encoding }, kruptein { secret, hashing, encodeas }, disableTouch. A place says where: { url, collection }, { url, prefix } or { path }.
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import session from 'express-session'

const require = createRequire(import.meta.url)
// Old packages on a new Node: what they call is deprecated, and still there.
process.noDeprecation = true

// One client for each driver and server, shared by all stores: connecting is slow, and no part of what is compared.
const clients = new Map()
const client = (driver, url, connect) => {
  const key = `${driver} ${url}`
  if (!clients.has(key)) clients.set(key, connect(require(driver)))
  return clients.get(key)
}
const mongoClient = (driver) => (url) => client(driver, url, ({ MongoClient }) => MongoClient.connect(url))
const redisClient = (driver) => (url) => client(driver, url, ({ createClient }) => createClient({ url }).connect())

// The driver that connect-mongo 3.2 brings with it.
const mongoClientOf3 = (url) =>
  client('connect-mongo-3.2', url, () => {
    const { MongoClient } = createRequire(require.resolve('connect-mongo-3.2'))('mongodb')
    return MongoClient.connect(url, { useUnifiedTopology: true })
  })

export const hashedId = (sid) => createHash('sha256').update(sid).digest('hex')

const mongoOptions = (o, { collection }) => ({
  collectionName: collection,
  ttl: o.ttl,
  touchAfter: o.touchAfter,
  stringify: o.stringify,
  ...(o.timestamps === undefined ? {} : { timestamps: o.timestamps }),
  ...(o.hashedId ? { transformId: hashedId } : {}),
  ...(o.kruptein ? { crypto: o.kruptein } : {}),
})

// Since version 4: a class, and ready when its collection is.
const mongo = (name, driver) => async (o, place) => {
  const module = require(name)
  const { createWebCryptoAdapter } = module
  const Store = module.create ? module : (module.default ?? module.MongoStore)
  const options = mongoOptions(o, place)
  if (o.crypto) options.cryptoAdapter = createWebCryptoAdapter(o.crypto)
  const store = Store.create({ client: await mongoClient(driver)(place.url), ...options })
  await store.collectionP
  return store
}

const mongo3 = async (o, place) => {
  const Store = require('connect-mongo-3.2')(session)
  const { collectionName, ...options } = mongoOptions(o, place)
  const store = new Store({ client: await mongoClientOf3(place.url), collection: collectionName, ...options })
  await store.collectionReady()
  return store
}

const redisOptions = (o, { prefix }) => ({
  ttl: o.ttl,
  ...(prefix === undefined ? {} : { prefix }),
  ...(o.disableTouch === undefined ? {} : { disableTouch: o.disableTouch }),
})

const redis = (name, driver) => async (o, place) => {
  const module = require(name)
  const Store = module.RedisStore ?? module.default
  return new Store({ client: await redisClient(driver)(place.url), ...redisOptions(o, place) })
}

// Callbacks: the client of that time is ioredis, or redis 3.
const redis6 = async (o, place) => {
  const Store = require('connect-redis-6.1')(session)
  const connected = client('ioredis', place.url, (Redis) => new Redis(place.url))
  return new Store({ client: connected, ...redisOptions(o, place) })
}

// A missing file is tried again five times by default: slower, and no different.
const file = async (o, place) => new (require('session-file-store')(session))({ path: place.path, ttl: o.ttl, retries: 0, reapInterval: -1, logFn: () => {} })

export const versions = {
  'mongo-3.2': { kind: 'mongodb', package: 'connect-mongo-3.2.0', make: mongo3 },
  'mongo-4.6': { kind: 'mongodb', package: 'connect-mongo-4.6.0', make: mongo('connect-mongo-4.6', 'mongodb-4'), kruptein: true },
  'mongo-5.1': { kind: 'mongodb', package: 'connect-mongo-5.1.0', make: mongo('connect-mongo-5.1', 'mongodb'), kruptein: true },
  'mongo-6.0': { kind: 'mongodb', package: 'connect-mongo-6.0.0', make: mongo('connect-mongo-6.0', 'mongodb'), kruptein: true, webCrypto: true },
  'redis-6.1': { kind: 'redis', package: 'connect-redis-6.1.3', make: redis6 },
  'redis-7.1': { kind: 'redis', package: 'connect-redis-7.1.1', make: redis('connect-redis-7.1', 'redis-4') },
  'redis-8.1': { kind: 'redis', package: 'connect-redis-8.1.0', make: redis('connect-redis-8.1', 'redis') },
  'redis-9.0': { kind: 'redis', package: 'connect-redis-9.0.0', make: redis('connect-redis-9.0', 'redis') },
  'redis-10.0': { kind: 'redis', package: 'connect-redis-10.0.0', make: redis('connect-redis-10.0', 'redis') },
  'file-1.5': { kind: 'file', package: 'session-file-store-1.5.0', make: file },
}

// --- the sidecar's words

const text = JSON.stringify // a TOML basic string
const line = (key, value) => (value === undefined ? '' : `${key} = ${value}\n`)
const seconds = (value) => (value === undefined ? undefined : text(`${value}s`))
const table = (name, entries) => `[${name}]\n${entries.map(([key, value]) => line(key, value)).join('')}`

const sidecarMongodb = (o, place) => {
  const { crypto, kruptein } = o
  const tables = [
    line('url', text(place.url)) + line('collection', text(place.collection)) + line('stringify', o.stringify) + line('timestamps', o.timestamps) +
      line('touch_after', seconds(o.touchAfter)) + line('transform_id', o.hashedId ? '"sha256"' : undefined),
  ]
  if (crypto) {
    const { secret, salt, iterations, encoding } = crypto
    tables.push(table('store.crypto', [['secret', text(secret)], ['salt', text(salt)], ['iterations', iterations], ['encoding', text(encoding)]]))
  }
  if (kruptein) {
    const { secret, hashing, encodeas } = kruptein
    tables.push(table('store.crypto.kruptein', [['secret', text(secret)], ['hashing', text(hashing)], ['encodeas', text(encodeas)]]))
  }
  return tables.join('')
}
const sidecarWords = {
  mongodb: sidecarMongodb,
  redis: (o, place) => line('url', text(place.url)) + line('prefix', text(place.prefix)) + line('disable_touch', o.disableTouch),
  file: (o, place) => line('path', text(place.path)) + line('reap_interval', '"never"'),
}

// Lines for the sidecar's [store].
export const sidecarStore = (version, o, place) => {
  const { kind } = versions[version]
  return line('kind', text(kind)) + line('ttl', seconds(o.ttl)) + sidecarWords[kind](o, place)
}
