// The deliberate differences between the sidecar and express-session with its stores: what walk.mjs and differential.mjs allow, and
// nothing else. The README's table is `node tests/compat/differential.mjs --table`.
export const exceptions = {
  'old key': ['A cookie that an old secret signed is set anew, signed by the first', 'the old secret can be retired as soon as its cookies have aged out'],
  'later cookie': ['Of several cookies of the name the one that verifies and is alive counts; express-session looks at the first only', 'a stale twin on another path or domain logs nobody out'],
  'dead twin': ['A twin whose session is gone is expired, on every scope that it may have', 'it would be sent for ever'],
  'destroy clears': ['`destroy` also clears the browser\'s cookie (`clear_cookie_on_destroy = false`: not)', 'nothing is left in the browser of somebody who signed out'],
  'save sets': ['`save` on a new session also sets the cookie', 'a session that is stored, and that no browser knows, is litter'],
  'save refreshes': ['`save` stores the session with its refreshed expiry; `req.session.save()` alone with the one that was loaded', 'what is stored says when the session ends'],
  'max-age=session': ['`max-age=session` always sets the cookie; express-session keeps silent about a session without expiry', 'the browser would keep the old expiry'],
  'auto of the moment': ['With `secure = "auto"` or `same_site = "auto"` the cookie follows the present request; express-session freezes what the session\'s first request was', 'a session begun over http becomes safe with the first request over https'],
  'parallel merges': ['Of parallel requests that change different keys all changes survive; with express-session the last save wins', 'a merge is applied to what is stored when it is written'],
  'touchAfter is no change': ['connect-mongo with `touchAfter` takes its `lastModified` out of a session that it saves again unchanged (`resave`, `save`), and express-session then sets the cookie for a change that nobody made', 'a change is one of the data'],
  '__lastAccess is no change': ['session-file-store writes `__lastAccess` into the session that it saves again unchanged (`resave`, `save`), and express-session then sets the cookie for a change that nobody made', 'a change is one of the data'],
}

const used = new Map()

// One use of a named exception; an unknown name is a mistake here.
export const except = (name) => {
  if (!Object.hasOwn(exceptions, name)) throw new Error(`no such exception: ${name}`)
  used.set(name, (used.get(name) ?? 0) + 1)
}

export const usage = () => [...used].map(([name, count]) => `${name} ${count}`).join(', ') || 'none'

export const table = () =>
  ['| difference | reason |', '|---|---|', ...Object.values(exceptions).map(([difference, reason]) => `| ${difference} | ${reason} |`)].join('\n')
