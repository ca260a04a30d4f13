// The app behind the sidecar: Node's standard library and two headers, no session code. The pages are those of express-app.mjs.
import http from 'node:http'

// A header holds ASCII; JSON can say the rest with escapes.
const ascii = (value) =>
  JSON.stringify(value).replace(/[\u007f-\uffff]/g, (unit) => '\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0'))

const merge = (data, patch) => {
  const merged = { ...data, ...patch }
  for (const key of Object.keys(merged)) if (merged[key] === null) delete merged[key]
  return merged
}

// page: (data, argument) => [update, control, the data afterwards]
const pages = {
  '/get': (data) => [undefined, undefined, data],
  '/login': (_, user) => [{ user }, 'regenerate, replace', { user }],
  '/inc': (data) => {
    const update = { n: (data.n ?? 0) + 1 }
    return [update, undefined, merge(data, update)]
  },
  '/set': (data, patch) => [patch, undefined, merge(data, patch)],
  '/replace': (_, whole) => [whole, 'replace', whole],
  '/save': (data) => [undefined, 'save', data],
  '/unset': () => [null, undefined, {}],
  '/logout': () => [undefined, 'destroy', {}],
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://app.test')
  const page = pages[url.pathname]
  if (!page) return response.writeHead(404).end()
  const argument = url.searchParams.get('arg')
  const [update, control, after] = page(JSON.parse(request.headers['x-session']), argument && JSON.parse(argument))
  if (update !== undefined) response.setHeader('X-Session-Update', ascii(update))
  if (control) response.setHeader('X-Session-Control', control)
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify(after))
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
