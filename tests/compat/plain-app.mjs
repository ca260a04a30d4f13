// The app behind the sidecar: Node's standard library and two headers, no session code. The pages are those of express-app.mjs.
// On its own it prints its port.
import http from 'node:http'
import { fileURLToPath } from 'node:url'
import { applyPatch, put, reply } from './pages.mjs'

// A header holds ASCII; JSON can say the rest with escapes.
export const ascii = (value) =>
  JSON.stringify(value).replace(/[\u007f-\uffff]/g, (unit) => '\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0'))

const changed = (data, change) => {
  const copy = {}
  for (const key of Object.keys(data)) put(copy, key, data[key])
  change(copy)
  return copy
}

// page: (data, argument) => [update, control, the data afterwards]
const pages = {
  '/get': (data) => [undefined, undefined, data],
  '/login': (_, user) => [{ user }, 'regenerate, replace', { user }],
  '/renew': (data) => [undefined, 'regenerate', data],
  '/inc': (data) => {
    const update = { n: (data.n ?? 0) + 1 }
    return [update, undefined, applyPatch(data, update)]
  },
  '/age': (data, seconds) => {
    const update = { n: (data.n ?? 0) + 1 }
    return [update, `max-age=${seconds ?? 'session'}`, applyPatch(data, update)]
  },
  '/put': (data, values) => {
    const whole = changed(data, (copy) => Object.entries(values).forEach(([key, value]) => put(copy, key, value)))
    return [whole, 'replace', whole]
  },
  '/remove': (data, keys) => [
    Object.fromEntries(keys.map((key) => [key, null])),
    undefined,
    changed(data, (copy) => keys.forEach((key) => delete copy[key])),
  ],
  '/merge': (data, patch) => [patch, undefined, applyPatch(data, patch)],
  '/replace': (_, whole) => [whole, 'replace', whole],
  '/save': (data) => [undefined, 'save', data],
  '/reload': (data) => [undefined, undefined, data],
  '/unset': () => [null, undefined, {}],
  '/logout': () => [undefined, 'destroy', {}],
}

const handle = (request, response) => {
  const [path, query] = request.url.split('?')
  const asked = new URLSearchParams(query)
  const name = /\/\w+$/.exec(path)?.[0]
  if (!Object.hasOwn(pages, name)) return response.writeHead(404).end()
  const session = request.headers['x-session']
  const status = asked.get('status')
  // Outside cookie.path there is no session, and nobody reads what is said about it.
  const argument = asked.get('arg')
  const [update, control, after] = pages[name](JSON.parse(session ?? '{}'), argument && JSON.parse(argument))
  if (update !== undefined) response.setHeader('X-Session-Update', ascii(update))
  if (control) response.setHeader('X-Session-Control', control)
  reply(response, status ?? undefined, session === undefined ? 'no session' : after)
}

export const startPlain = async () => {
  const server = http.createServer({ maxHeaderSize: 1 << 20, keepAliveTimeout: 60_000 }, handle)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { port: server.address().port, stop: () => void (server.close(), server.closeAllConnections()) }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log((await startPlain()).port)
