// What both apps share: how they answer, and how plain objects are changed.

// An own property of any name, `__proto__` too.
export const put = (object, key, value) =>
  Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true })

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

// RFC 7396, with the order of keys that assignments in JavaScript give.
export const applyPatch = (target, patch) => {
  if (!isObject(patch)) return patch
  const merged = {}
  if (isObject(target)) for (const key of Object.keys(target)) put(merged, key, target[key])
  for (const key of Object.keys(patch)) {
    if (patch[key] === null) delete merged[key]
    else put(merged, key, applyPatch(Object.hasOwn(merged, key) ? merged[key] : undefined, patch[key]))
  }
  return merged
}

// The session's data as the answer, with whatever status was asked for.
export const reply = (response, status, data) => {
  response.statusCode = Number(status ?? 200)
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify(data))
}
