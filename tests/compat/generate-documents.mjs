// Writes the golden documents of tests/fixtures/mongodb: what the real connect-mongo stores in a real MongoDB, as raw BSON, in plain
// text and sealed. tests/it/store_conformance/sealed.rs reads them.
// Usage, in a folder whose node_modules has the packages of package.json:
//   node <this file> <output folder> <mongodb url> [<folder with kruptein> …]
// The further kruptein versions are those that connect-mongo's "^3.0.0" meant at other times.
import { createRequire } from 'node:module'
import fs from 'node:fs'
import Module from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.cwd(), 'here.js'))
const [out, url, ...folders] = process.argv.slice(2)
const session = require('express-session')
const { MongoClient, BSON } = require('mongodb')
const { MongoClient: MongoClient4 } = require('mongodb-4')
const { webcrypto } = await import('node:crypto')
const version = (folder) => JSON.parse(fs.readFileSync(path.join(folder, 'package.json'))).version
const folderOf = (name) => path.join(process.cwd(), 'node_modules', name)

// A kruptein in the place of the installed one. Its own requires are answered by this folder's packages.
let kruptein = null
const resolve = Module._resolveFilename
Module._resolveFilename = function (name, parent, ...rest) {
  if (name === 'kruptein' && kruptein) name = kruptein
  try {
    return resolve.call(this, name, parent, ...rest)
  } catch {
    return resolve.call(this, name, { ...parent, paths: [path.join(process.cwd(), 'node_modules')] }, ...rest)
  }
}

const secret = 'AA11!!aa-golden-seal' // kruptein 3.1 and later insist on such a mixture
const datas = {
  empty: {},
  user: { user: { id: 5, name: 'Ünï "q" \\ 😀', big: 5000000000, f: 1.5, list: [1, null, { x: true }] }, views: 3 },
  typed: { type: 'string', value: '{"cookie":{}}', half: '\ud800', when: '2026-01-01T00:00:00.000Z' },
}
const cookies = {
  lasting: { originalMaxAge: 3600000, expires: new Date('2099-01-02T03:04:05.678Z'), httpOnly: true, path: '/' },
  browser: { originalMaxAge: null, expires: null, secure: true, httpOnly: true, path: '/app', sameSite: 'lax' },
}

const admin = await MongoClient.connect(url)
const documents = admin.db().collection('golden')
const call = (store, name, ...args) =>
  new Promise((done, fail) => store[name](...args, (error, result) => (error ? fail(error) : done(result))))

async function rows(make, options, about) {
  const store = make(options)
  const out = []
  for (const [data, cookie] of [['empty', 'browser'], ['user', 'lasting'], ['typed', 'lasting']]) {
    const sid = `${data}-${cookie}`
    const value = store.createSession({ sessionID: sid }, structuredClone({ cookie: cookies[cookie], ...datas[data] }))
    const text = JSON.stringify(value)
    await call(store, 'set', sid, value)
    // Does the version that wrote it read it?
    const whole = (found) => Object.keys(datas[data]).every((key) => key in found)
    const back = await call(store, 'get', sid).then((found) => found.cookie !== undefined && whole(found), () => false)
    const id = options.transformId ? options.transformId(sid) : sid
    const bson = await documents.findOne({ _id: id }, { raw: true })
    out.push({ ...about, sid, text, back, bson: Buffer.from(bson).toString('base64') })
  }
  await documents.deleteMany({})
  return out
}

const common = { autoRemove: 'disabled' }
const plain = [
  [{ stringify: true }, {}],
  [{ stringify: false }, {}],
  [{ stringify: true, touchAfter: 3600, timestamps: true }, {}],
  [{ stringify: false, touchAfter: 3600, timestamps: true }, {}],
]

async function write(name, make, variants) {
  const all = []
  for (const [options, about] of variants) {
    const { stringify = true, touchAfter = 0, timestamps = false } = options
    all.push(...(await rows(make, { ...common, ...options }, { stringify, touchAfter, timestamps, ...about })))
  }
  fs.writeFileSync(path.join(out, name), all.map((row) => JSON.stringify(row) + '\n').join(''))
  console.log(name, all.length, 'rows,', all.filter((row) => !row.back).length, 'not read back by their writer')
}

function kruptein_variants() {
  const variants = []
  for (const stringify of [true, false]) {
    for (const [hashing, encodeas] of [[undefined, undefined], ['sha384', 'hex'], ['sha256', 'base64']]) {
      const crypto = { secret, ...(hashing && { hashing }), ...(encodeas && { encodeas }) }
      variants.push([{ stringify, crypto }, { kruptein: { secret, hashing: hashing ?? 'sha512', encodeas: encodeas ?? 'base64' } }])
    }
  }
  return variants
}

// 3.2: its own MongoDB driver, its own `secret` option.
{
  const Store = require('connect-mongo-3.2')(session)
  const make = (options) => new Store({ url, collection: 'golden', ...options })
  const variants = [...plain.slice(0, 3), [{ secret }, { secret }]]
  await write(`connect-mongo-${version(folderOf('connect-mongo-3.2'))}.jsonl`, make, variants)
}

const client4 = await MongoClient4.connect(url)
for (const [name, client] of [['connect-mongo-4.6', client4], ['connect-mongo-5.1', admin]]) {
  const number = version(folderOf(name))
  for (const folder of [null, ...folders]) {
    kruptein = folder && path.resolve(folder)
    for (const key of Object.keys(require.cache)) if (key.includes('kruptein')) delete require.cache[key]
    const Store = require(name)
    const make = (options) => Store.create({ client, collectionName: 'golden', ...options })
    const sealer = version(kruptein ?? folderOf('kruptein'))
    if (!folder) await write(`connect-mongo-${number}.jsonl`, make, plain)
    if (!folder || name === 'connect-mongo-5.1') {
      await write(`connect-mongo-${number}-kruptein-${sealer}.jsonl`, make, kruptein_variants())
    }
  }
}
kruptein = null

{
  const name = 'connect-mongo-6.0'
  const { MongoStore, createWebCryptoAdapter } = require(name)
  const make = (options) => MongoStore.create({ client: admin, collectionName: 'golden', ...options })
  const number = version(folderOf(name))
  await write(`connect-mongo-${number}.jsonl`, make, plain)
  const sealer = version(path.join(folderOf(name), 'node_modules/kruptein'))
  await write(`connect-mongo-${number}-kruptein-${sealer}.jsonl`, make, kruptein_variants())
  const variants = []
  for (const stringify of [true, false]) {
    for (const more of [{}, { encoding: 'hex' }, { encoding: 'base64url', salt: 'a salt of our own', iterations: 1000 }]) {
      const cryptoAdapter = createWebCryptoAdapter({ secret, ...more })
      variants.push([{ stringify, cryptoAdapter }, { webcrypto: { secret, ...more } }])
    }
  }
  await write(`connect-mongo-${number}-webcrypto.jsonl`, make, variants)
}
await client4.close()
await admin.close()
process.exit(0)
