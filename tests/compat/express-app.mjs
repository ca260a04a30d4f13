// The app as people have it today: Express with express-session and a store of its world. Options:
// { session: {express-session's}, store: { version, options, place } (see stores.mjs) | none for the memory store, trustProxy, tls }.
// The pages are those of plain-app.mjs. On its own it reads the options as JSON from OPTIONS and prints its port.
import http from 'node:http'
import https from 'node:https'
import { fileURLToPath } from 'node:url'
import express from 'express'
import session from 'express-session'
import { applyPatch, put, reply } from './pages.mjs'
import { versions } from './stores.mjs'

// What the stores show in the session for themselves; the app did not put it there.
const own = ['cookie', 'lastModified', '__lastAccess']
const data = (req) => {
  const found = {}
  for (const key of Object.keys(req.session)) if (!own.includes(key)) put(found, key, req.session[key])
  return found
}
const replace = (req, whole) => {
  for (const key of Object.keys(data(req))) delete req.session[key]
  for (const key of Object.keys(whole)) put(req.session, key, whole[key])
}
const argument = (req) => req.query.arg && JSON.parse(req.query.arg)
const fresh = (req) => new Promise((resolve, reject) => req.session.regenerate((error) => (error ? reject(error) : resolve())))

// page: what happens to the session
const pages = {
  '/get': () => {},
  '/login': async (req) => {
    await fresh(req)
    req.session.user = argument(req)
  },
  // A new sid for the same data.
  '/renew': async (req) => {
    const kept = data(req)
    await fresh(req)
    replace(req, kept)
  },
  '/inc': (req) => void (req.session.n = (req.session.n ?? 0) + 1),
  '/age': (req) => {
    const seconds = argument(req)
    req.session.n = (req.session.n ?? 0) + 1
    req.session.cookie.maxAge = seconds === null ? null : seconds * 1000
  },
  '/put': (req) => Object.entries(argument(req)).forEach(([key, value]) => put(req.session, key, value)),
  '/remove': (req) => argument(req).forEach((key) => delete req.session[key]),
  '/merge': (req) => {
    const merged = applyPatch(data(req), argument(req))
    for (const key of Object.keys(data(req))) if (!Object.hasOwn(merged, key)) delete req.session[key]
    for (const key of Object.keys(merged)) put(req.session, key, merged[key])
  },
  '/replace': (req) => replace(req, argument(req)),
  // `save` of the sidecar refreshes the expiry first; `req.session.save()` alone writes the one that was loaded (exceptions.mjs).
  '/save': (req) => new Promise((resolve, reject) => req.session.touch().save((error) => (error ? reject(error) : resolve()))),
  '/reload': (req) => new Promise((resolve) => req.session.reload(() => resolve())),
  '/unset': (req) => void (req.session = null),
  '/logout': (req) => new Promise((resolve, reject) => req.session.destroy((error) => (error ? reject(error) : resolve()))),
  // What only an Express app can put into a session: a Date.
  '/date': (req) => void (req.session.when = new Date(argument(req))),
}

// TLS with a key that both sides know: real, and no certificate to be made.
const psk = Buffer.from('0123456789abcdef0123456789abcdef', 'hex')
const pskServer = { ciphers: 'PSK', maxVersion: 'TLSv1.2', pskCallback: () => psk }
const pskClient = { ciphers: 'PSK', maxVersion: 'TLSv1.2', pskCallback: () => ({ psk, identity: 'test' }), checkServerIdentity: () => undefined }

export const startExpress = async (options) => {
  const app = express()
  if (options.trustProxy !== undefined) app.set('trust proxy', options.trustProxy)
  app.disable('x-powered-by').disable('etag')
  const { store } = options
  const made = store && (await versions[store.version].make(store.options, store.place))
  app.use(session({ store: made, ...options.session }))
  app.use(async (req, res, next) => {
    const name = /\/\w+$/.exec(req.path)?.[0]
    if (!Object.hasOwn(pages, name)) return next()
    // Outside cookie.path there is no session.
    if (req.session === undefined) return reply(res, req.query.status, 'no session')
    // For the tests: what express-session would make of a cookie's "auto" now.
    const twin = Object.create(req)
    req.sessionStore.generate(twin)
    const { secure, sameSite } = twin.session.cookie
    res.setHeader('X-Moment', JSON.stringify({ secure, sameSite }))
    await pages[name](req)
    res.setHeader('X-Sid', encodeURIComponent(req.sessionID))
    reply(res, req.query.status, req.session ? data(req) : {})
  })
  // Arguments come in the address line, and may be long.
  const settings = { maxHeaderSize: 1 << 20, keepAliveTimeout: 60_000 }
  const server = options.tls ? https.createServer({ ...settings, ...pskServer }, app) : http.createServer(settings, app)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { tls: options.tls && pskClient, port: server.address().port, store: made, stop: () => void (server.close(), server.closeAllConnections()) }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { port } = await startExpress(JSON.parse(process.env.OPTIONS))
  console.log(port)
}
